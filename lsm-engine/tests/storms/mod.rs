mod checks;
mod crashes;
mod keyspaces;
mod model;
mod openings;
mod world;
mod writes;

pub(crate) use world::run;
