//! lbha: the controller of the XDP load balancer. The module list is the map of the program.

pub mod api;
pub mod cli;
