/// Which run the outputs of a compaction become part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputRun {
    /// They join the oldest run of the output level, which is the only one in a leveled level; a level without
    /// runs gets one. Never in level 0.
    Join,
    /// They become a run of their own. Without an input in the output level: its newest run. Else in the place of
    /// the newest run with an input there, of which no table stays behind; and if there are inputs from above as
    /// well, that must be the newest run.
    NewRun,
}
