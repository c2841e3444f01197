//! `fastctl`: the command line over the agent's socket.
