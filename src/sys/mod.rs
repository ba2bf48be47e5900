//! The only `unsafe` code: system calls that no safe crate offers. Each file wraps one of them behind a safe function.

#![allow(unsafe_code)]

pub mod heap;
pub mod identity;
pub mod process;
pub mod writeback;
