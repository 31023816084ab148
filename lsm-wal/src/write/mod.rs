//! Writing a log: appending, syncing for whoever waits, and going on after recovery. Deletes nothing that a reader of
//! the log needs.

pub(crate) mod background_job;
pub(crate) mod calls;
pub(crate) mod group_commit;
pub(crate) mod log_copy;
pub(crate) mod origin;
pub(crate) mod recovery;
pub(crate) mod resume;
pub(crate) mod rewrite;
pub(crate) mod site;
pub(crate) mod window_writer;
pub(crate) mod writer;
