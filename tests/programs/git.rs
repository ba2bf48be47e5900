//! git: a repository with a history, cloned onto the mount, checked, worked in and packed.

use std::fmt::Write as _;
use std::fs;

use crate::common::Volume;
use crate::{needs, script};

const COMMITS: usize = 300;
const FILES: usize = 400;

/// A history in the words of `git fast-import`.
fn history() -> String {
    let mut stream = String::new();
    for commit in 0..COMMITS {
        let message = format!("Change {commit}");
        writeln!(stream, "commit refs/heads/main").unwrap();
        writeln!(
            stream,
            "committer A <a@example.org> {} +0000",
            1_700_000_000 + commit
        )
        .unwrap();
        writeln!(stream, "data {}\n{message}", message.len()).unwrap();
        for change in 0..4 {
            let file = (commit * 4 + change) % FILES;
            let text =
                format!("file {file} of commit {commit}\n").repeat(1 + (file * 7 + commit) % 200);
            let mode = if file.is_multiple_of(13) {
                "100755"
            } else {
                "100644"
            };
            writeln!(
                stream,
                "M {mode} inline d{}/s{}/file{file}",
                file % 7,
                file % 3
            )
            .unwrap();
            writeln!(stream, "data {}\n{text}", text.len()).unwrap();
        }
        writeln!(stream, "M 120000 inline link\ndata 14\nd0/s0/../file0").unwrap();
    }
    stream
}

#[test]
fn a_clone_is_sound_and_can_be_worked_in() {
    needs(&[("git", "git")]);
    let volume = Volume::mounted();
    let outside = volume.folder();
    fs::write(outside.join("history"), history()).unwrap();
    script(
        outside,
        "git init -q -b main source
         git -C source fast-import --quiet < history
         git clone -q --no-local source plain/clone
         git -C source rev-parse HEAD > head",
    );
    let check = "git fsck --full --strict 2>&1
         test -z \"$(git status --porcelain)\"
         test \"$(git rev-list --count HEAD)\" = $1";
    let check = |commits: usize| {
        script(&volume.path("clone"), &format!("set -- {commits}\n{check}"));
    };
    check(COMMITS);
    script(
        &volume.path("clone"),
        "cmp <(git rev-parse HEAD) ../../head
         git config user.email a@example.org
         git config user.name A
         git checkout -q -b work HEAD~100
         git mv d1 moved
         echo more >> link-less
         git add -A
         git commit -q -m 'Move'
         git checkout -q main
         git merge -q -s ours -m 'Merge' work
         git stash list
         git gc -q --prune=now
         git worktree add -q ../second work
         test -f ../second/moved/s1/file1",
    );
    check(COMMITS + 2);
    volume.remount();
    check(COMMITS + 2);
}
