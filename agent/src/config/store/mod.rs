//! The definitions of `vhosts.d`: loading them all, keeping them in step with their files, writing them.

mod change;
mod index;
mod load;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use index::{Change, Definitions, Readings};
pub use load::{load_dir, read_files};
pub use read::{Dir, MOST_FILE_BYTES, is_definition_file};
pub use write::{file_name, remove_definition, write_definition};
