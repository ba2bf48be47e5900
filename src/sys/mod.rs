//! The only `unsafe` code: what no safe crate offers, each file behind safe functions.

#![allow(unsafe_code)]

pub mod heap;
pub mod identity;
pub mod locked;
pub mod process;
pub mod writeback;
pub mod xattr;
