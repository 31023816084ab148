use lsm_engine::compaction_policies::{
    Action, Compaction, CompactionPolicy, InputLevel, OutputRun, Reason, TreeShape,
};

/// A policy that compacts nothing, so each flush leaves a table. With [`splits`](Self::splits) it writes each key of a
/// table to a table of its own.
#[derive(Debug)]
pub(crate) struct Never {
    pub(crate) splits: bool,
}

impl CompactionPolicy for Never {
    fn name(&self) -> &'static str {
        "never"
    }

    fn level_count(&self) -> usize {
        2
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        let tables = shape.levels.first()?.free_tables();
        let input = InputLevel::new(0, tables.filter(|table| self.splits && table.entries > 1));
        (!input.tables.is_empty()).then(|| Compaction {
            inputs: vec![input],
            output_level: 0,
            output_run: OutputRun::NewRun,
            action: Action::Merge,
            target_table_bytes: 1,
            reason: Reason::Level0,
        })
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        0
    }
}
