//! The only `unsafe` code: what no safe crate offers, each file behind safe functions.

#![allow(unsafe_code)]

pub mod heap;
pub mod identity;
pub mod locked;
pub mod pages;
pub mod process;
pub mod ring;
pub mod scheduling;
pub mod writeback;
pub mod xattr;
