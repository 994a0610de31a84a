//! Temporary root: the integrator's module list takes its place.

pub mod cli {
    //! The commands.
    pub mod demo;
}
