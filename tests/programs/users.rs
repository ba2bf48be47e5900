//! Many users on one mount: ownership, permissions, inheritance.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::common::Volume;
use crate::{needs, script};

/// A mount everybody can reach, with a directory `here` everybody can write to. `as USER[:GROUP,…] COMMAND…` runs as that
/// user, in those groups (the first is his primary one; without: the one of the same number).
fn shared() -> Volume {
    needs(&[("setpriv", "util-linux"), ("setfacl", "acl")]);
    let volume = Volume::new();
    volume.mount(&["-o", "suid"]);
    let everybody = |mode| Permissions::from_mode(mode);
    fs::set_permissions(volume.folder(), everybody(0o755)).unwrap();
    fs::set_permissions(volume.mountpoint(), everybody(0o755)).unwrap();
    fs::create_dir(volume.path("here")).unwrap();
    fs::set_permissions(volume.path("here"), everybody(0o777)).unwrap();
    volume
}

fn run(volume: &Volume, text: &str) -> String {
    const AS: &str = "
        as() {
            local who=$1 groups; shift
            groups=${who#*:}
            setpriv --reuid=${who%%:*} --regid=${groups%%,*} --groups=$groups bash -euo pipefail -c \"$*\"
        }
        denied() { if as \"$@\" 2> /dev/null; then echo \"should be denied: $*\" >&2; return 1; fi; }
        is() { test \"$(stat -c '%a %u %g' \"$1\")\" = \"$2\" || { stat \"$1\" >&2; echo \"expected $2\" >&2; return 1; }; }
        umask 022
    ";
    script(&volume.path("here"), &format!("{AS}\n{text}"))
}

#[test]
fn what_is_made_belongs_to_whom_makes_it() {
    let volume = shared();
    let made = "
        for thing in file dir fifo; do is $thing '640 1001 2001' || is $thing '750 1001 2001'; done
        test $(stat -c '%u %g' link | tr ' ' -) = 1001-2001
        test $(stat -c '%u %g' socket | tr ' ' -) = 1001-2001";
    run(
        &volume,
        &format!(
            "as 1001:2001 'umask 027; echo x > file; mkdir dir; mkfifo fifo; ln -s file link
                 perl -MSocket -e \"socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un(q(socket))) or die\"'
             {made}"
        ),
    );
    volume.remount();
    run(&volume, made);
}

#[test]
fn permissions_hold_for_users_groups_and_others() {
    run(
        &shared(),
        "as 1001:2001 'umask 077; echo secret > mine; mkdir dir; echo x > dir/file'
         denied 1002:2002 'cat mine'
         denied 1002:2002 'cat dir/file'
         denied 1002:2002 'echo >> mine'
         denied 1002:2002 'chmod 777 mine'
         denied 1002:2002 'chown 1002 mine'
         denied 1001:2001 'chown 1002 mine'
         denied 1002:2002 'touch -d yesterday mine'
         denied 1002:2002 'touch mine'
         as 1001:2001 'chmod 660 mine'
         as 1002:2002,2001 'echo group >> mine'
         denied 1002:2002 'echo other >> mine'
         as 1001:2001,2005 'chgrp 2005 mine'
         is mine '660 1001 2005'
         denied 1001:2001 'chgrp 2006 mine'
         denied 1001:2001 'mkdir ../dir'
         as 1001:2001 'chmod 000 mine'
         denied 1001:2001 'cat mine'
         test \"$(cat mine)\" = \"$(printf 'secret\\ngroup')\"",
    );
}

#[test]
fn a_file_open_for_its_maker_stays_open_whatever_its_mode() {
    run(
        &shared(),
        "as 1001:2001 'exec 3<> closed 4> locked; chmod 000 closed locked; echo x >&3; echo y >&4; cat <&3
             umask 777; echo made > unreadable'
         test $(cat closed)$(cat locked)$(cat unreadable) = xymade
         is unreadable '0 1001 2001'
         denied 1001:2001 'cat unreadable'",
    );
}

#[test]
fn a_sticky_directory_protects_what_others_made() {
    run(
        &shared(),
        "mkdir tmp; chmod 1777 tmp
         as 1001:2001 'echo x > tmp/mine'
         denied 1002:2002 'rm -f tmp/mine'
         denied 1002:2002 'mv tmp/mine tmp/yours'
         as 1001:2001 'rm tmp/mine'",
    );
}

#[test]
fn a_setgid_directory_hands_its_group_down() {
    run(
        &shared(),
        "mkdir team; chgrp 2009 team; chmod 2777 team
         as 1001:2001 'umask 022; touch team/file; mkdir team/dir; mkdir -m 0700 team/own'
         is team/file '644 1001 2009'
         is team/dir '2755 1001 2009'
         is team/own '2700 1001 2009'
         as 1001:2001 'touch team/dir/file'
         is team/dir/file '644 1001 2009'
         as 1001:2001,2009 'touch team/program; chmod 2755 team/program'
         is team/program '2755 1001 2009'
         as 1001:2001 'chmod 2755 team/file'
         is team/file '755 1001 2009'
         # What is made setgid in a group that its maker is not in, is not setgid.
         as 1001:2001 'perl -MFcntl -e \"umask 0; sysopen(F, q(team/made), O_CREAT|O_WRONLY, 02775) or die\"'
         is team/made '775 1001 2009'
         as 1001:2001,2009 'perl -MFcntl -e \"umask 0; sysopen(F, q(team/member), O_CREAT|O_WRONLY, 02775) or die\"'
         is team/member '2775 1001 2009'",
    );
}

#[test]
fn a_default_acl_takes_the_place_of_the_umask() {
    let volume = shared();
    run(
        &volume,
        "mkdir acl; chmod 777 acl; setfacl -m d:u::rwx,d:g::rwx,d:u:1002:rw,d:o::- acl
         as 1001:2001 'umask 077; echo text > acl/file; mkdir acl/dir; echo deep > acl/dir/file'
         getfacl -cn acl/file | grep -qx 'user:1002:rw-'
         getfacl -cn acl/dir | grep -qx 'default:user:1002:rw-'
         is acl/file '660 1001 2001'
         is acl/dir '770 1001 2001'",
    );
    let holds = "
         as 1002:2002 'echo more >> acl/file'
         denied 1003:2003 'cat acl/file'
         denied 1002:2002 'cat acl/dir/file'";
    run(&volume, holds);
    volume.remount();
    run(&volume, holds);
    run(
        &volume,
        "setfacl -k acl
         as 1001:2001 'umask 077; touch acl/plain'
         is acl/plain '600 1001 2001'
         as 1001:2001 'setfacl -m u:1003:r acl/plain'
         as 1003:2003 'cat acl/plain'
         denied 1003:2003 'setfacl -b acl/plain'",
    );
}

#[test]
fn setuid_and_setgid_go_when_the_owner_changes() {
    run(
        &shared(),
        "as 1001:2001,2005 'echo x > program; chmod 6755 program'
         is program '6755 1001 2001'
         as 1001:2001,2005 'chgrp 2005 program'
         is program '755 1001 2005'
         as 1001:2005 'chmod 6755 program'
         chown 1002 program
         is program '755 1002 2005'
         chmod 6745 program
         chown 1003 program
         is program '2745 1003 2005'
         mkdir dir; chmod 2775 dir; chown 1001:2001 dir
         is dir '2775 1001 2001'",
    );
}
