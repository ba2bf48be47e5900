//! SQLite with a write-ahead log: shared memory, locks and fsync between several processes.

use crate::common::Volume;
use crate::{needs, script};

const WRITERS: usize = 4;
const ROWS: usize = 100;

#[test]
fn several_connections_share_a_database_with_a_write_ahead_log() {
    needs(&[("sqlite3", "sqlite3")]);
    let volume = Volume::mounted();
    let fill = |round: usize| {
        script(
            &volume.mountpoint(),
            &format!(
                "sqlite3 base 'pragma journal_mode=wal;
                               create table if not exists t(writer, row, text, primary key(writer, row));' > mode
                 grep -qx wal mode
                 pids=
                 for writer in $(seq {WRITERS}); do
                     {{
                         echo '.timeout 60000'
                         echo 'pragma synchronous=normal;'
                         for row in $(seq {ROWS}); do
                             echo \"insert into t values('{round}-$writer', $row, hex(randomblob(300)));\"
                             echo 'select count(*), sum(length(text)) from t;'
                         done
                     }} | sqlite3 -bail base > counts.$writer & pids=\"$pids $!\"
                 done
                 for pid in $pids; do wait $pid; done
                 test \"$(sqlite3 base 'pragma integrity_check;')\" = ok
                 for writer in $(seq {WRITERS}); do sort -c -n -t '|' counts.$writer; done"
            ),
        );
    };
    let rows = || {
        script(
            &volume.mountpoint(),
            "sqlite3 base 'select count(*) from t;'",
        )
    };
    fill(1);
    assert_eq!(rows().trim(), (WRITERS * ROWS).to_string());
    volume.remount();
    assert_eq!(rows().trim(), (WRITERS * ROWS).to_string());
    fill(2);
    volume.remount();
    assert_eq!(rows().trim(), (2 * WRITERS * ROWS).to_string());
    let check = "sqlite3 base 'pragma integrity_check; pragma wal_checkpoint(truncate); vacuum; pragma integrity_check;'";
    assert_eq!(script(&volume.mountpoint(), check), "ok\n0|0|0\nok\n");
}
