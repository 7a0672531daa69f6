//! lbha: the controller of the XDP load balancer. The module list is the map of the program.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod lb;
pub mod net;
pub mod plan;
