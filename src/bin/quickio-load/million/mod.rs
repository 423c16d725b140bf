//! The scenario `million`: very many clients in one thread, in steps that are read from standard input.
//!
//! | module | contents |
//! | --- | --- |
//! | [`plan`] | the parts of the plan that other scenarios do not have |
//! | [`steps`] | the steps, and the lines that request them |
//! | [`client`] | the record of a client |
//! | [`cause`] | the causes for which clients fail and end |
//! | [`opening`] | the queue of clients that are to be opened |
//! | [`rings`] | the rings that hold the sockets |
//! | [`frames`] | the frames that clients send |
//! | [`measured`] | the measurements of a step |
//! | [`swarm`] | the clients and their rings: one turn |
//! | [`network`] | the kernel's counters that explain slow and failed connections |
//! | [`members`] | the number of open clients in each room |
//! | [`deliveries`], [`pinging`] | the measurements of events and pings |
//! | [`backoff`] | the pause before a client connects again |
//! | [`mod@run`] | runs the steps |
//! | [`broadcast`], [`rooms`], [`returning`] | the steps of these names |

mod backoff;
mod broadcast;
mod cause;
mod client;
mod deliveries;
mod frames;
mod measured;
mod members;
mod network;
mod opening;
mod pinging;
mod plan;
mod returning;
mod rings;
mod rooms;
mod run;
mod steps;
mod swarm;

pub use plan::MillionPlan;
pub use run::run;
