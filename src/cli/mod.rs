//! The command line.

pub mod init;
pub mod mount;
pub mod status;
pub mod unmount;
