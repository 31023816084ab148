mod checks;
mod copies;
mod crashes;
mod faults;
mod filter;
mod keyspaces;
mod loads;
mod model;
mod openings;
mod tally;
mod tickets;
mod transactions;
mod world;
mod writes;

pub(crate) use tally::Tally;
pub(crate) use world::run;
