//! Sealing and opening one block, as the data path does it: in caller-owned buffers, a fresh nonce each.

use std::hint::black_box;

use cmkfs::crypto::block;
use cmkfs::crypto::envelope::DataKey;
use cmkfs::crypto::object::ObjectKeys;
use cmkfs::format::envelope::ObjectKind;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn blocks(criterion: &mut Criterion) {
    let keys = ObjectKeys::new(&DataKey::random().unwrap(), ObjectKind::File);
    let mut group = criterion.benchmark_group("block");
    for size in [64, 4096] {
        let plain = vec![0x5a; size];
        let mut sealed = vec![0; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("seal", size), |bencher| {
            bencher.iter(|| block::seal(&keys, 7, black_box(&plain), &mut sealed));
        });
        let entry = block::seal(&keys, 7, &plain, &mut sealed);
        group.bench_function(BenchmarkId::new("open", size), |bencher| {
            bencher.iter_batched_ref(
                || sealed.clone(),
                |buffer| block::open(&keys, 7, &entry, black_box(buffer)).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, blocks);
criterion_main!(benches);
