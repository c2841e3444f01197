//! The definitions of `vhosts.d`: loading them all, keeping them in step with their files, writing them.

mod change;
mod index;
mod load;
mod read;
#[cfg(test)]
mod tests;

pub use index::{Change, Definitions};
pub use load::load_dir;
pub use read::{Dir, MOST_FILE_BYTES, is_definition_file};
