//! Writers: what was written before the command is kept, what races it is kept or reported, and nobody can put it off.

use std::fs::File;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::common::{DEADLINE, Volume, eventually};
use super::{disable, enable, is_revoked};

const BLOCK: usize = 4096;

fn new_file(volume: &Volume, name: &str) -> File {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    options.open(volume.path(name)).unwrap()
}

fn block(number: usize) -> Vec<u8> {
    let mut block = vec![(number % 251) as u8; BLOCK];
    block[..8].copy_from_slice(&(number as u64).to_le_bytes());
    block
}

fn holds(file: &File, number: usize) -> bool {
    let mut found = vec![0; BLOCK];
    file.read_exact_at(&mut found, (number * BLOCK) as u64)
        .unwrap();
    found == block(number)
}

/// Closes a file and says what close(2) says, which dropping it would not.
fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor is ours alone, and not used again.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn what_was_written_before_the_command_is_in_the_backing_directory_when_it_returns() {
    let volume = Volume::mounted();
    let blocks = 64;
    let files: Vec<_> = (0..20)
        .map(|number| {
            let file = new_file(&volume, &number.to_string());
            for number in 0..blocks {
                file.write_all_at(&block(number), (number * BLOCK) as u64)
                    .unwrap();
            }
            // Some stay open.
            (number % 2 == 0).then_some(file)
        })
        .collect();
    disable(&volume);
    // What had not been written yet would be lost now.
    volume.kill();
    drop(files);
    enable(&volume);
    volume.mount(&[]);
    for number in 0..20 {
        let file = File::open(volume.path(number.to_string())).unwrap();
        assert!(
            (0..blocks).all(|number| holds(&file, number)),
            "file {number}"
        );
    }
}

#[test]
fn a_write_that_was_acknowledged_by_fsync_is_there() {
    let volume = Volume::mounted();
    let over = &AtomicBool::new(false);
    let written = &AtomicUsize::new(0);
    let failed = &AtomicUsize::new(0);
    let names = ["a", "b", "c", "d"];
    let acknowledged: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let writers: Vec<_> = names
            .iter()
            .map(|name| {
                let file = new_file(&volume, name);
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    for number in 0.. {
                        if over.load(Ordering::SeqCst) {
                            break;
                        }
                        let done = file
                            .write_all_at(&block(number % 5000), (number % 5000 * BLOCK) as u64)
                            .and_then(|()| file.sync_data());
                        if done.is_ok() {
                            acknowledged.push(number % 5000);
                            written.fetch_add(1, Ordering::SeqCst);
                        } else {
                            failed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        for _ in 0..10 {
            let before = written.load(Ordering::SeqCst);
            eventually("the writers are at work", || {
                written.load(Ordering::SeqCst) > before + 20
            });
            disable(&volume);
            enable(&volume);
        }
        over.store(true, Ordering::SeqCst);
        let joined = writers.into_iter().map(|writer| writer.join().unwrap());
        joined.collect()
    });
    println!("{written:?} acknowledged, {failed:?} refused");
    volume.remount();
    for (name, numbers) in names.iter().zip(&acknowledged) {
        let file = File::open(volume.path(name)).unwrap();
        for number in numbers {
            assert!(holds(&file, *number), "{name}: block {number}");
        }
    }
}

#[test]
fn a_file_whose_writes_and_close_succeeded_is_whole() {
    let volume = Volume::mounted();
    let over = &AtomicBool::new(false);
    let (whole, refused) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
    let kept: Vec<Vec<String>> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let volume = &volume;
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for number in 0.. {
                        if over.load(Ordering::SeqCst) {
                            break;
                        }
                        let name = format!("{writer}-{}", number % 500);
                        let mut options = File::options();
                        options.write(true).create(true).truncate(false);
                        let written = options.open(volume.path(&name)).and_then(|file| {
                            for number in 0..16 {
                                file.write_all_at(&block(number), (number * BLOCK) as u64)?;
                            }
                            close(file)
                        });
                        match written {
                            Ok(()) => {
                                kept.push(name);
                                whole.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(_) => {
                                refused.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    }
                    kept
                })
            })
            .collect();
        for _ in 0..10 {
            let before = whole.load(Ordering::SeqCst);
            eventually("the writers are at work", || {
                whole.load(Ordering::SeqCst) > before + 20
            });
            disable(&volume);
            enable(&volume);
        }
        over.store(true, Ordering::SeqCst);
        let joined = writers.into_iter().map(|writer| writer.join().unwrap());
        joined.collect()
    });
    println!("{whole:?} whole, {refused:?} refused");
    volume.remount();
    for name in kept.iter().flatten() {
        let file = File::open(volume.path(name)).unwrap();
        assert!((0..16).all(|number| holds(&file, number)), "{name}");
    }
}

#[test]
fn a_busy_writer_cannot_put_the_command_off() {
    let volume = Volume::mounted();
    let over = &AtomicBool::new(false);
    let rounds = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let file = new_file(&volume, name);
            scope.spawn(move || {
                let piece = vec![1; 1 << 20];
                let mut refused = 0_u32;
                while !over.load(Ordering::SeqCst) {
                    for at in 0..32 {
                        refused += u32::from(file.write_all_at(&piece, at << 20).is_err());
                    }
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
                assert!(refused > 0, "nothing was ever refused");
            });
        }
        eventually("the writers are at work", || {
            rounds.load(Ordering::SeqCst) > 2
        });
        let start = Instant::now();
        disable(&volume);
        println!("after {:?}", start.elapsed());
        assert!(start.elapsed() < DEADLINE / 2);
        assert!(is_revoked(&File::open(volume.path("a"))));
        let refused = rounds.load(Ordering::SeqCst);
        eventually("writes are refused", || {
            rounds.load(Ordering::SeqCst) > refused + 2
        });
        over.store(true, Ordering::SeqCst);
    });
    enable(&volume);
}
