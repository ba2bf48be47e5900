//! Files through the core, without FUSE, on memory where there is /dev/shm.

use std::ffi::OsString;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cmkfs::clock::SystemClock;
use cmkfs::crypto::passphrase::Passphrase;
use cmkfs::fs::{
    Caller, DirectoryEntry, FileSystem, Fill, HandleId, NewMode, OpenFlags, ROOT_NODE,
};
use cmkfs::kms::error::KmsError;
use cmkfs::kms::root::{NewProtection, PassphraseSource};
use cmkfs::kms::service::KeyService;
use cmkfs::volume::{self, Access, Volume};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MIB: usize = 1 << 20;
/// Bytes of the file that is read and overwritten: larger than a processor's caches, small enough for any /dev/shm.
const FILE: usize = 64 * MIB;
const BLOCK: usize = 4096;
const WRITE: OpenFlags = OpenFlags {
    write: true,
    truncate: false,
};
const MODE: NewMode = NewMode {
    permissions: 0o600,
    umask: 0,
};

struct NoPassphrase;

impl PassphraseSource for NoPassphrase {
    fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
        unreachable!("the store has a root key file")
    }

    fn chosen(&self, _: &Path) -> Result<Passphrase, KmsError> {
        unreachable!("the store has a root key file")
    }
}

fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: 0,
    }
}

fn open_volume() -> (tempfile::TempDir, Volume) {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let (keys, _) = KeyService::open_or_create(
        &dir.path().join("keys"),
        NewProtection::RootKeyFile,
        &NoPassphrase,
        Arc::new(SystemClock),
    )
    .unwrap();
    let keys = Arc::new(keys);
    let cipher = dir.path().join("cipher");
    volume::create(&cipher, &keys, &"alias/cmkfs/default".parse().unwrap()).unwrap();
    let volume = volume::open(&cipher, &keys, Access::ReadWrite).unwrap();
    (dir, volume)
}

fn create(fs: &FileSystem, name: &str) -> HandleId {
    let name = OsString::from(name);
    let created = fs.create(caller(), ROOT_NODE, &name, MODE, WRITE).unwrap();
    created.1.handle
}

/// Offsets of all blocks in an order without locality, over and over: a full-period congruential walk.
fn scattered() -> impl FnMut() -> u64 {
    let blocks = (FILE / BLOCK) as u64;
    let mut at = 0_u64;
    move || {
        at = (at * 1_664_525 + 1_013_904_223) % blocks;
        at * BLOCK as u64
    }
}

fn sequential(criterion: &mut Criterion, fs: &FileSystem, handle: HandleId) {
    let mut group = criterion.benchmark_group("sequential");
    group.throughput(Throughput::Bytes(MIB as u64));
    let mut buffer = vec![0x5a; MIB];
    let mut next = 0;
    let mut step = move || {
        next = (next + MIB) % FILE;
        next as u64
    };
    group.bench_function("write 1 MiB", |bencher| {
        bencher.iter(|| fs.write(handle, step(), black_box(&buffer)).unwrap());
    });
    group.bench_function("read 1 MiB", |bencher| {
        bencher.iter(|| fs.read(handle, step(), black_box(&mut buffer)).unwrap());
    });
    group.finish();
}

fn random(criterion: &mut Criterion, fs: &FileSystem, handle: HandleId) {
    let mut group = criterion.benchmark_group("random");
    group.throughput(Throughput::Bytes(BLOCK as u64));
    let mut buffer = vec![0xa5; BLOCK];
    let mut offset = scattered();
    group.bench_function("read 4 KiB", |bencher| {
        bencher.iter(|| fs.read(handle, offset(), black_box(&mut buffer)).unwrap());
    });
    group.bench_function("overwrite 4 KiB", |bencher| {
        bencher.iter(|| fs.write(handle, offset(), black_box(&buffer)).unwrap());
    });
    group.finish();
}

fn small_files(criterion: &mut Criterion, fs: &FileSystem) {
    let mut group = criterion.benchmark_group("small file");
    group.throughput(Throughput::Elements(1));
    let content = [0x3c; 1024];
    group.bench_function("create, write 1 KiB, close, remove", |bencher| {
        bencher.iter(|| {
            let name = OsString::from("small");
            let (attributes, opened) = fs.create(caller(), ROOT_NODE, &name, MODE, WRITE).unwrap();
            fs.write(opened.handle, 0, black_box(&content)).unwrap();
            fs.release(opened.handle);
            // So that the directory stays as it is, however long this runs.
            fs.remove_file(ROOT_NODE, &name).unwrap();
            fs.forget(attributes.node, 1);
        });
    });
    group.finish();
}

/// Many files in one directory: found by name, and listed.
fn names(criterion: &mut Criterion, fs: &FileSystem) {
    const FILES: usize = 10_000;
    let names: Vec<_> = (0..FILES).map(|n| format!("name {n}")).collect();
    for name in &names {
        fs.release(create(fs, name));
    }
    let mut group = criterion.benchmark_group("names");
    group.throughput(Throughput::Elements(1));
    let mut each = names.iter().cycle();
    group.bench_function("look up and stat", |bencher| {
        bencher.iter(|| {
            let name = OsString::from(each.next().unwrap());
            let found = fs.lookup(ROOT_NODE, &name).unwrap().node;
            black_box(fs.attributes(found, None).unwrap());
            fs.forget(found, 1);
        });
    });
    group.throughput(Throughput::Elements(FILES as u64));
    group.sample_size(20);
    group.bench_function("list with attributes", |bencher| {
        bencher.iter(|| {
            let handle = fs.open_directory(ROOT_NODE).unwrap();
            let mut found = Vec::new();
            let mut take = |entry: DirectoryEntry<'_>| {
                found.extend(entry.attributes.map(|attributes| attributes.node));
                Fill::Taken
            };
            fs.read_directory_plus(handle, 0, Duration::ZERO, &mut take)
                .unwrap();
            fs.release_directory(handle);
            found.iter().for_each(|node| fs.forget(*node, 1));
        });
    });
    group.finish();
}

fn files(criterion: &mut Criterion) {
    let (_dir, fs) = open_volume();
    let handle = create(&fs, "large");
    for at in (0..FILE).step_by(MIB) {
        fs.write(handle, at as u64, &vec![1; MIB]).unwrap();
    }
    sequential(criterion, &fs, handle);
    random(criterion, &fs, handle);
    fs.release(handle);
    small_files(criterion, &fs);
    names(criterion, &fs);
    fs.shutdown().unwrap();
}

criterion_group!(benches, files);
criterion_main!(benches);
