//! The operations that are tried.

use std::ffi::OsStr;
use std::ops::ControlFlow;

use cmkfs::format::header::KeyBinding;
use cmkfs::fs::{FileKind, NodeType, OpenFlags, ROOT_NODE, SetAttributes, SetTime, XattrMode};
use cmkfs::volume::{rekey, rewrap};

use crate::beds::{
    Operation, SIZE, answer, by_block, bytes, directories, file, filled, journaled, long, nothing,
    populated, set, sparse, temporary, two, two_long, whole, with_handle, words,
};
use crate::support::tree::{Mode, Range, Tree};
use crate::support::{MODE, caller};

/// The one operation that takes two steps on the disk.
pub const OVER_A_DIRECTORY: &str = "rename of a directory over one";
/// The alias of another key.
const OTHER: &str = "alias/other";

pub fn operations() -> Vec<Operation> {
    vec![
        whole("create", nothing, |t| words(t.create("r/f", 0o644))),
        whole("create, long name", nothing, |t| {
            words(t.create(&long("n"), 0o644))
        }),
        whole("mknod", nothing, |t| {
            let node = NodeType {
                kind: FileKind::Fifo,
                device: 0,
            };
            let parent = t.look_up("r").map_err(|errno| errno.to_string())?;
            let made = t
                .fs()
                .make_node(caller(), parent, OsStr::new("p"), MODE, node);
            words(t.found(made))
        }),
        by_block(
            "first write",
            |t| file(t, "r/f", 0),
            |t| words(t.write("r/f", 0, &bytes(5, SIZE))),
        ),
        by_block(
            "first write, past the beginning",
            |t| file(t, "r/f", 0),
            |t| words(t.write("r/f", 5000, &bytes(5, 5000))),
        ),
        by_block("overwrite", filled, |t| {
            words(t.write("r/f", 5000, &bytes(5, 280_000)))
        }),
        by_block("overwrite of a few bytes", filled, |t| {
            words(t.write("r/f", 100, b"over"))
        }),
        by_block("overwrite once more", journaled, |t| {
            words(t.write_held(10_000, &bytes(5, 20_000)))
        }),
        by_block("overwrite and append", filled, |t| {
            words(t.write("r/f", SIZE as u64 - 9000, &bytes(5, 50_000)))
        }),
        by_block("append", filled, |t| {
            words(t.write("r/f", SIZE as u64, &bytes(5, 250_000)))
        }),
        by_block("append to a record", journaled, |t| {
            words(t.write_held(SIZE as u64, &bytes(5, 5000)))
        }),
        by_block("write far past the end", filled, |t| {
            words(t.write("r/f", 800_000, b"far"))
        }),
        by_block("hole fill", sparse, |t| {
            words(t.write("r/f", 100_000, &bytes(5, 50_000)))
        }),
        by_block("truncate", filled, |t| words(t.truncate("r/f", 100_000))),
        by_block("truncate with records", journaled, |t| {
            words(t.truncate("r/f", 25_000))
        }),
        by_block("truncate to nothing", filled, |t| {
            words(t.truncate("r/f", 0))
        }),
        by_block("extend", filled, |t| words(t.truncate("r/f", 900_000))),
        by_block("extend with records", journaled, |t| {
            words(t.truncate("r/f", 900_000))
        }),
        by_block("open with O_TRUNC", filled, |t| {
            let node = t.look_up("r/f").map_err(|errno| errno.to_string())?;
            let flags = OpenFlags {
                write: true,
                truncate: true,
            };
            let opened = t.fs().open(caller(), node, flags);
            let opened = opened.map_err(|error| error.errno().to_string())?;
            t.fs().release(opened.handle);
            Ok(())
        }),
        by_block("punch", filled, |t| {
            words(t.allocate("r/f", Range::Punch, 5000, 260_000))
        }),
        by_block("punch of records", journaled, |t| {
            words(t.allocate("r/f", Range::Punch, 5000, 25_000))
        }),
        by_block("zero", filled, |t| {
            words(t.allocate("r/f", Range::Zero, 5000, 310_000))
        }),
        by_block("zero, same size", filled, |t| {
            words(t.allocate("r/f", Range::ZeroKeepSize, 5000, 310_000))
        }),
        by_block("allocate", sparse, |t| {
            words(t.allocate("r/f", Range::Allocate, 50_000, 400_000))
        }),
        by_block("allocate, same size", sparse, |t| {
            words(t.allocate("r/f", Range::KeepSize, 50_000, 400_000))
        }),
        by_block("fsync", filled, |t| {
            with_handle(t, |fs, handle| {
                fs.write(handle, 8192, &bytes(5, 20_480))?;
                fs.sync(handle, false)?;
                fs.write(handle, 40_960, &bytes(5, 20_480))?;
                fs.sync(handle, true)
            })
        }),
        by_block(
            "fsync of a new file",
            |t| file(t, "r/f", 0),
            |t| {
                with_handle(t, |fs, handle| {
                    fs.write(handle, 0, &bytes(5, 20_000))?;
                    fs.sync(handle, false)
                })
            },
        ),
        // What cannot be sealed now is sealed later: there is nobody to tell.
        by_block("seal", filled, |t| {
            t.write("r/f", 5000, &bytes(5, 20_000)).unwrap_or_default();
            t.fs().seal_now();
            words(t.write("r/f", 5000, &bytes(5, 20_000)))
        }),
        whole("mkdir", nothing, |t| words(t.mkdir("r/d", 0o755))),
        whole("mkdir, long name", nothing, |t| {
            words(t.mkdir(&long("d"), 0o755))
        }),
        whole("rmdir", directories, |t| words(t.rmdir("r/e"))),
        whole(
            "rmdir, long name",
            |t| t.mkdir(&long("d"), 0o755).unwrap(),
            |t| words(t.rmdir(&long("d"))),
        ),
        whole("rename", two, |t| {
            words(t.rename("r/a", "r/c", Mode::Replace))
        }),
        whole("rename, long names", two_long, |t| {
            words(t.rename(&long("a"), &long("c"), Mode::Replace))
        }),
        whole("rename, no-replace", two, |t| {
            words(t.rename("r/a", &long("c"), Mode::NoReplace))
        }),
        whole("rename over a file", two, |t| {
            words(t.rename("r/a", "r/b", Mode::Replace))
        }),
        whole("rename over a file, long names", two_long, |t| {
            words(t.rename(&long("a"), &long("b"), Mode::Replace))
        }),
        whole("exchange", two, |t| {
            words(t.rename("r/a", "r/b", Mode::Exchange))
        }),
        whole("exchange, long names", two_long, |t| {
            words(t.rename(&long("a"), &long("b"), Mode::Exchange))
        }),
        whole(
            "exchange of a file and a directory",
            |t| {
                directories(t);
                two(t);
            },
            |t| words(t.rename("r/a", "r/d", Mode::Exchange)),
        ),
        whole(
            "rename to another directory",
            |t| {
                directories(t);
                two(t);
            },
            |t| words(t.rename("r/a", "r/e/a", Mode::Replace)),
        ),
        whole("rename of a directory", directories, |t| {
            words(t.rename("r/d", "r/e/d", Mode::Replace))
        }),
        whole(OVER_A_DIRECTORY, directories, |t| {
            words(t.rename("r/d", "r/e", Mode::Replace))
        }),
        whole("link", two, |t| words(t.link("r/a", "r/c"))),
        whole("link, long name", two, |t| words(t.link("r/a", &long("c")))),
        whole("a file without a name that gets one", nothing, |t| {
            let made = t
                .hold_temporary("r", 0o644)
                .and_then(|()| t.write_held(0, &bytes(5, SIZE)))
                .and_then(|()| t.link_held(&long("c")));
            t.release_held();
            words(made)
        }),
        whole("link of a file without a name", temporary, |t| {
            words(t.link_held("r/c"))
        }),
        whole("link of a file without a name, long name", temporary, |t| {
            words(t.link_held(&long("c")))
        }),
        whole(
            "set an attribute of a file without a name, and link it",
            temporary,
            |t| {
                let (node, _) = t.held_last().ok_or("nothing is held")?;
                let set = t.fs().set_xattr(
                    caller(),
                    node,
                    OsStr::new("user.a"),
                    b"value",
                    XattrMode::Set,
                );
                words(set.map_err(|error| error.errno()))?;
                words(t.link_held("r/c"))
            },
        ),
        whole("unlink", two, |t| words(t.unlink("r/a"))),
        whole("unlink, long name", two_long, |t| {
            words(t.unlink(&long("a")))
        }),
        whole("unlink of a file with records", journaled, |t| {
            words(t.unlink("r/f"))
        }),
        whole("symlink", nothing, |t| words(t.symlink("r/s", "target"))),
        whole("symlink in a side file, long name", nothing, |t| {
            words(t.symlink(&long("s"), &"t".repeat(4000)))
        }),
        whole(
            "unlink of a symlink in a side file",
            |t| {
                t.symlink("r/s", &"t".repeat(4000)).unwrap();
            },
            |t| words(t.unlink("r/s")),
        ),
        whole("set an attribute", filled, |t| {
            words(t.set_xattr("r/f", "user.a", &bytes(1, 3000)))
        }),
        whole(
            "set an attribute of an empty file",
            |t| file(t, "r/f", 0),
            |t| words(t.set_xattr("r/f", "user.a", b"value")),
        ),
        whole("set an attribute of a directory", directories, |t| {
            words(t.set_xattr("r/d", "user.a", b"value"))
        }),
        whole(
            "replace an attribute",
            |t| {
                filled(t);
                t.set_xattr("r/f", "user.a", b"old").unwrap();
            },
            |t| words(t.set_xattr("r/f", "user.a", b"new")),
        ),
        whole(
            "remove an attribute",
            |t| {
                filled(t);
                t.set_xattr("r/f", "user.a", b"old").unwrap();
            },
            |t| words(t.remove_xattr("r/f", "user.a")),
        ),
        whole("chmod", two, |t| words(t.chmod("r/a", 0o600))),
        whole("chown", two, |t| {
            set(
                t,
                "r/a",
                SetAttributes {
                    uid: Some(caller().uid),
                    gid: Some(caller().gid),
                    ..SetAttributes::default()
                },
            )
        }),
        whole("utimens", two, |t| words(t.set_mtime("r/a", 1_000_000, 5))),
        whole(
            "utimens with records",
            |t| {
                journaled(t);
                t.release_held();
            },
            |t| {
                set(
                    t,
                    "r/f",
                    SetAttributes {
                        mtime: Some(SetTime::Now),
                        ..SetAttributes::default()
                    },
                )
            },
        ),
        whole("readdir", populated, |t| words(t.list("r"))),
        whole("read", populated, |t| words(t.see("r/f"))),
        whole("read with records", journaled, |t| words(t.read_held())),
        whole("readlink", populated, |t| words(t.see("r/side"))),
        whole(
            "bind",
            |t| {
                directories(t);
                t.volume.new_key(OTHER);
            },
            |t| {
                let node = t.look_up("r/e").map_err(|errno| errno.to_string())?;
                let bound = t.fs().bind(node, &KeyBinding::Alias(OTHER.to_owned()));
                words(bound.map_err(|error| error.errno()))
            },
        ),
        whole(
            "rewrap",
            |t| {
                t.volume.new_key(OTHER);
                let node = t.look_up("r").unwrap();
                let to = KeyBinding::Alias(OTHER.to_owned());
                t.fs().bind(node, &to).unwrap();
                populated(t);
                t.volume.new_key(OTHER);
            },
            |t| {
                let go_on = &mut |_| ControlFlow::Continue(());
                let done = rewrap::rewrap(t.open_volume(), ROOT_NODE, None, go_on);
                answer(done, |report| &report.failures)
            },
        ),
        whole(
            "rewrap under another key",
            |t| {
                populated(t);
                t.volume.new_key(OTHER);
            },
            |t| {
                let node = t.look_up("r").map_err(|errno| errno.to_string())?;
                let to = KeyBinding::Alias(OTHER.to_owned());
                let go_on = &mut |_| ControlFlow::Continue(());
                let done = rewrap::rewrap(t.open_volume(), node, Some(&to), go_on);
                answer(done, |report| &report.failures)
            },
        ),
        whole("rekey", populated, |t| {
            let go_on = &mut |_| ControlFlow::Continue(());
            let done = rekey::rekey(t.open_volume(), ROOT_NODE, go_on);
            answer(done, |report| &report.failures)
        }),
    ]
}
