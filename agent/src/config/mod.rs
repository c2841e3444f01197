//! What the operator writes: agent.toml, definitions, units.
