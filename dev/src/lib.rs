//! What the tests and benchmarks of several crates share. Not published: the crates name it as a dev-dependency only.
//!
//! - [`Layer`] makes an environment, a file system or a file of a type that changes a few methods of another one. All
//!   other methods are forwarded here, so that a new method of `Env`, `Vfs` or `VfsFile` is added at one place.
//! - [`Wide`], [`Observed`] and [`Impatient`] are environments, [`Synced`] is a file system that calls a test back.
//! - [`Random`] and [`each_seed`] serve random tests, [`Rows`] benchmarks.
//!
//! It knows `lsm-core` alone. What only the tests of one crate share is a module in the `tests` folder of that crate.

mod env;
mod layer;
mod random;
mod rows;
mod vfs;

pub use env::{EnvLayer, Hook, Impatient, Observed, Wide};
pub use layer::Layer;
pub use random::{Random, each_seed};
pub use rows::Rows;
pub use vfs::{FileLayer, NoFs, Synced, VfsLayer};
