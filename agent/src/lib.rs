//! The node agent and its command line.
pub mod cli;
pub mod config;
pub mod doctor;
