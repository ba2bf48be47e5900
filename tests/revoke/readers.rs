//! Readers that never stop: after the command has returned none of them gets another byte.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::common::{Volume, eventually};
use super::{SIZE, disable, enable, is_revoked, read};

/// Ways to get at a file's content.
type Reader = fn(&File, &Path) -> io::Result<()>;

fn cached(file: &File, _: &Path) -> io::Result<()> {
    read(file).map(drop)
}

fn uncached(file: &File, _: &Path) -> io::Result<()> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    read(file).map(drop)
}

fn opened_anew(_: &File, path: &Path) -> io::Result<()> {
    fs::read(path).map(drop)
}

fn spliced(file: &File, _: &Path) -> io::Result<()> {
    let (receiver, sender) = rustix::pipe::pipe()?;
    let flags = rustix::pipe::SpliceFlags::empty();
    let moved = rustix::pipe::splice(file, Some(&mut 0), sender, None, 4096, flags)?;
    drop(receiver);
    if moved == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn past_the_cache(_: &File, path: &Path) -> io::Result<()> {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let mut page = Box::new(Page([0; 4096]));
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    file.read_exact_at(&mut page.0, 0)
}

fn size(_: &File, path: &Path) -> io::Result<()> {
    fs::metadata(path).map(drop)
}

#[test]
fn no_reader_gets_a_byte_after_the_command_has_returned() {
    let volume = Volume::mounted();
    let readers: [Reader; 6] = [cached, uncached, opened_anew, spliced, past_the_cache, size];
    let files: Vec<_> = (0..readers.len())
        .map(|number| {
            let path = volume.path(number.to_string());
            fs::write(&path, vec![5; SIZE]).unwrap();
            (File::open(&path).unwrap(), path)
        })
        .collect();
    for _ in 0..10 {
        let (returned, over) = (&AtomicBool::new(false), &AtomicBool::new(false));
        let (leaked, done) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for (reader, (file, path)) in readers.iter().zip(&files) {
                scope.spawn(move || {
                    let mut refused = 0;
                    while refused < 100 && !over.load(Ordering::SeqCst) {
                        // Asked before: a read that began before the command returned may have been served.
                        let is_late = returned.load(Ordering::SeqCst);
                        match reader(file, path) {
                            Ok(()) if is_late => {
                                leaked.fetch_add(1, Ordering::SeqCst);
                            }
                            Ok(()) => {
                                done.fetch_add(1, Ordering::SeqCst);
                            }
                            refusal => {
                                assert!(is_revoked(&refusal), "{refusal:?}");
                                refused += usize::from(is_late);
                            }
                        }
                    }
                });
            }
            eventually("every reader is at work", || {
                done.load(Ordering::SeqCst) > 10 * readers.len()
            });
            disable(&volume);
            returned.store(true, Ordering::SeqCst);
            eventually("every reader was refused or has leaked", || {
                leaked.load(Ordering::SeqCst) > 0
                    || files.iter().all(|(file, _)| is_revoked(&read(file)))
            });
            if leaked.load(Ordering::SeqCst) > 0 {
                over.store(true, Ordering::SeqCst);
            }
        });
        assert_eq!(leaked.load(Ordering::SeqCst), 0);
        enable(&volume);
        for (reader, (file, path)) in readers.iter().zip(&files) {
            reader(file, path).unwrap();
        }
    }
}

#[test]
fn ten_thousand_open_files_stop_and_go_on() {
    const FILES: usize = 10_000;
    let limit = getrlimit(Resource::Nofile);
    let wanted = Some(limit.maximum.unwrap_or(u64::MAX).max(2 * FILES as u64));
    let raised = Rlimit {
        current: wanted,
        maximum: wanted,
    };
    setrlimit(Resource::Nofile, raised).expect("the tests run as root");
    let volume = Volume::mounted();
    let byte_of = |number: usize| (number % 251) as u8;
    let files: Vec<_> = (0..FILES)
        .map(|number| {
            let path = volume.path(number.to_string());
            fs::write(&path, [byte_of(number); 100]).unwrap();
            File::open(path).unwrap()
        })
        .collect();
    let read = |file: &File| {
        let mut bytes = [0; 100];
        file.read_exact_at(&mut bytes, 0).map(|()| bytes)
    };
    let all_read = || {
        for (number, file) in files.iter().enumerate() {
            assert_eq!(read(file).unwrap(), [byte_of(number); 100]);
        }
    };
    all_read();
    disable(&volume);
    assert!(files.iter().all(|file| is_revoked(&read(file))));
    enable(&volume);
    all_read();
}
