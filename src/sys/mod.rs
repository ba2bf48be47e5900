//! What is asked of the operating system beyond files.

pub mod process;
