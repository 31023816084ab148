//! Tables that come from outside the write path: tables built elsewhere (ingest), and sorted streams (bulk load).
//!
//! Input: paths of tables, or keys and values in order. Output: tables of the database that are durable and checked, handed
//! to the write path, which gives them their place in the order of writes (`write/ingest.rs`). Until that moment nothing
//! is visible, and a failure leaves no file behind; the files of the user are only read.

mod bulk_load;
mod check;
mod install;
mod pipeline;
mod request;
mod staged;
mod table_builder;

pub use bulk_load::BulkLoad;
pub(crate) use install::ingest;
pub use request::Ingest;
pub use table_builder::TableBuilder;
