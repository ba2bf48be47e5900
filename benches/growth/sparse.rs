//! One file, nearly all of it a hole: what operations at its far end cost, and those that go over all of it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};

use crate::figures::Figures;
use crate::programs::Outcome;
use crate::volume::Volume;

/// Sizes of the file, in bytes.
pub const SIZES: [u64; 3] = [1_000_000, 1_000_000_000, 100_000_000_000];
const PAGE: u64 = 4096;
/// Of so many the figure is the middle one.
const TIMES: u64 = 64;

/// A page as direct I/O wants it.
#[repr(align(4096))]
struct Page([u8; PAGE as usize]);

/// Measures one size.
pub fn measure(below: &Path, bytes: u64, figures: &mut Figures) -> Outcome<()> {
    let mut volume = Volume::new(below)?;
    let path = volume.mountpoint().join("file");
    let failed = |error: std::io::Error| format!("a file of {bytes} bytes: {error}");
    // Past the last block of these there is nothing but the end.
    let last = bytes / PAGE * PAGE - PAGE * (TIMES + 1);
    let mut page = Page([7; PAGE as usize]);
    let open = || {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.custom_flags(direct).open(&path)
    };

    let file = open().map_err(failed)?;
    let grow = once(|| file.set_len(bytes)).map_err(failed)?;
    let first = middle(|n| file.write_all_at(&page.0, last + n * PAGE)).map_err(failed)?;
    let over = middle(|n| file.write_all_at(&page.0, last + n * PAGE)).map_err(failed)?;
    drop(file);
    let (unmount, _) = volume.remount()?;

    let mut times = Vec::new();
    for _ in 0..TIMES {
        times.push(once(|| open().map(drop)).map_err(failed)?);
    }
    let opened = median(times);
    let file = open().map_err(failed)?;
    let read = middle(|n| file.read_exact_at(&mut page.0, last + n * PAGE)).map_err(failed)?;
    if page.0 != [7; PAGE as usize] {
        return Err(format!("a file of {bytes} bytes: not what was written"));
    }
    let step = bytes / 2 / TIMES / PAGE * PAGE;
    let hole = middle(|n| file.read_exact_at(&mut page.0, n * step)).map_err(failed)?;
    let seek_data = once(|| seek(&file, SeekFrom::Data(0), last)).map_err(failed)?;
    let seek_hole = once(|| seek(&file, SeekFrom::Hole(0), 0)).map_err(failed)?;
    let punch = middle(|n| {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&file, flags, last + n * PAGE, PAGE)?)
    });
    let punch = punch.map_err(failed)?;
    let punch_half = once(|| {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&file, flags, 0, bytes / 2)?)
    });
    let punch_half = punch_half.map_err(failed)?;
    let shrink = once(|| file.set_len(bytes / 2 + 1)).map_err(failed)?;
    drop(file);
    let (sealed, _) = volume.remount()?;
    let remove = once(|| std::fs::remove_file(&path)).map_err(failed)?;
    let memory = volume.memory()?;
    volume.unmount()?;

    let microseconds = |took: Duration| took.as_secs_f64() * 1e6;
    figures.add(
        "one sparse file",
        format!("{} MB", bytes / 1_000_000),
        vec![
            ("truncate up", "µs", microseconds(grow)),
            ("write 4 KiB at the end, new", "µs", microseconds(first)),
            ("write 4 KiB at the end, over", "µs", microseconds(over)),
            ("unmount after that (seals)", "µs", microseconds(unmount)),
            ("open, close", "µs", microseconds(opened)),
            ("read 4 KiB at the end", "µs", microseconds(read)),
            ("read 4 KiB of a hole", "µs", microseconds(hole)),
            ("SEEK_DATA over the hole", "µs", microseconds(seek_data)),
            ("SEEK_HOLE", "µs", microseconds(seek_hole)),
            ("punch 4 KiB at the end", "µs", microseconds(punch)),
            (
                "punch the first half, a hole",
                "µs",
                microseconds(punch_half),
            ),
            ("truncate down to half", "µs", microseconds(shrink)),
            ("unmount after that (seals)", "µs", microseconds(sealed)),
            ("unlink", "µs", microseconds(remove)),
            ("memory", "MiB", memory / f64::from(1 << 20)),
        ],
    );
    Ok(())
}

fn once(work: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn middle(mut work: impl FnMut(u64) -> std::io::Result<()>) -> std::io::Result<Duration> {
    let mut times = Vec::new();
    for number in 0..TIMES {
        times.push(once(|| work(number))?);
    }
    Ok(median(times))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Seeks, and checks that this leads to the block in which `expected` lies.
fn seek(file: &File, from: SeekFrom, expected: u64) -> std::io::Result<()> {
    let found = rustix::fs::seek(file, from)?;
    if found / PAGE == expected / PAGE {
        Ok(())
    } else {
        Err(std::io::Error::other(format!(
            "{from:?} led to {found} instead of {expected}"
        )))
    }
}
