//! fio: what was written, in random order, is read back and checked by its checksums.

use crate::common::Volume;
use crate::{needs, script};

/// Writes and verifies (the size must be a multiple of the block's, or fio finds an end too early when it only verifies); then verifies again what lies in the backing directory.
fn verify(job: &str) {
    needs(&[("fio", "fio")]);
    let volume = Volume::mounted();
    let fio = |more: &str| {
        script(
            &volume.mountpoint(),
            &format!(
                "fio --name=job --filename=data --size=4m --randrepeat=1 --allow_file_create=1 --fallocate=none \
                     --verify=crc32c --verify_fatal=1 --verify_state_save=0 {job} {more}"
            ),
        )
    };
    fio("--do_verify=1");
    volume.remount();
    fio("--verify_only=1");
}

#[test]
fn buffered_writes_verify() {
    verify("--rw=randwrite --bs=4k --ioengine=psync");
}

#[test]
fn buffered_writes_of_odd_sizes_verify() {
    verify("--rw=write --bs=12345 --size=4197300 --ioengine=psync --fsync=16");
}

#[test]
fn direct_writes_verify() {
    verify("--rw=randwrite --bs=4k --ioengine=psync --direct=1");
}

#[test]
fn many_direct_writes_at_once_verify() {
    verify("--rw=randwrite --bs=16k --ioengine=libaio --iodepth=16 --direct=1");
}

#[test]
fn mapped_writes_verify() {
    verify("--rw=randwrite --bs=4k --ioengine=mmap");
}
