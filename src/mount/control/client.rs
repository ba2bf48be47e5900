//! The command's side of the control socket: asks one mount, or all mounts of a key directory at once, and says which of them
//! did not answer in time. A mount that ends meanwhile has nothing left to answer.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::protocol::{self, Failed, Progress, RESPONSE_MAX, Request, Response};
use super::registry::{self, Entry};
use crate::volume::verify::Finding;

/// Why a mount gave no result.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there: the mount has ended, or is another host's.
    #[error("the mount has ended")]
    Ended,
    /// It took longer than was waited.
    #[error("it does not answer")]
    Silent,
    /// It said why it could not be done.
    #[error("{0}")]
    Failed(Failed),
    /// What came was no answer.
    #[error("{0}")]
    Broken(#[from] io::Error),
}

/// A mount that was asked.
#[derive(Debug)]
pub struct Asked {
    /// The daemon.
    pub process_id: u32,
    /// Its socket.
    pub socket: PathBuf,
    /// What it said.
    pub result: Result<Response, AskError>,
}

/// Asks every mount of a key directory at once, and waits for all of them until `deadline`. Mounts that have ended are left
/// out.
///
/// # Errors
/// Where the mounts cannot be listed.
pub fn ask_all(keys: &Path, request: &Request, deadline: Instant) -> io::Result<Vec<Asked>> {
    let entries = registry::list(keys)?;
    let ask_one = |entry: Entry| {
        let result = ask(&entry, request, Some(deadline), &mut |_| ());
        Asked {
            process_id: entry.process_id,
            socket: entry.path,
            result,
        }
    };
    let asked: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = entries
            .into_iter()
            .map(|entry| scope.spawn(|| ask_one(entry)))
            .collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .collect::<Result<_, _>>()
            .map_err(|_| io::Error::other("a thread that asked a mount panicked"))
    })?;
    let has_ended = |asked: &Asked| matches!(asked.result, Err(AskError::Ended));
    Ok(asked
        .into_iter()
        .filter(|asked| !has_ended(asked))
        .collect())
}

/// What a mount says before the result.
#[derive(Debug)]
pub enum Interim {
    /// How far it has come.
    Progress(Progress),
    /// What a verification has found.
    Finding(Finding),
}

/// Asks one mount. Progress is given to `progress` as it comes; without a `deadline` this waits for as long as it takes.
///
/// # Errors
/// Why there is no result.
pub fn ask(
    entry: &Entry,
    request: &Request,
    deadline: Option<Instant>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Response, AskError> {
    ask_and_hear(entry, request, deadline, &mut |said| match said {
        Interim::Progress(made) => progress(made),
        Interim::Finding(_) => {}
    })
}

/// As [`ask`], for requests that are answered by more than progress and a result.
///
/// # Errors
/// Why there is no result.
pub fn ask_and_hear(
    entry: &Entry,
    request: &Request,
    deadline: Option<Instant>,
    hear: &mut dyn FnMut(Interim),
) -> Result<Response, AskError> {
    let patience = left(deadline)?.unwrap_or(Duration::from_secs(30));
    let stream = match entry.connect(patience) {
        Ok(Some(stream)) => stream,
        Ok(None) => return Err(AskError::Ended),
        Err(error) => return Err(timely(error)),
    };
    match converse(&stream, request, deadline, hear) {
        // Cut short: either it has ended, or something is wrong with it.
        Err(AskError::Broken(_)) if matches!(entry.connect(patience), Ok(None)) => {
            Err(AskError::Ended)
        }
        result => result,
    }
}

fn converse(
    stream: &UnixStream,
    request: &Request,
    deadline: Option<Instant>,
    hear: &mut dyn FnMut(Interim),
) -> Result<Response, AskError> {
    stream.set_write_timeout(left(deadline)?)?;
    protocol::send(&mut { stream }, request).map_err(timely)?;
    let mut reader = BufReader::new(stream);
    loop {
        stream.set_read_timeout(left(deadline)?)?;
        match protocol::receive(&mut reader, RESPONSE_MAX).map_err(timely)? {
            Some(Response::Progress(made)) => hear(Interim::Progress(made)),
            Some(Response::Finding(finding)) => hear(Interim::Finding(finding)),
            Some(Response::Failed(failed)) => return Err(AskError::Failed(failed)),
            Some(response) => return Ok(response),
            None => {
                let cut = "the connection was closed before the answer";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut).into());
            }
        }
    }
}

/// The time that is left; a socket's timeout of zero would mean none.
fn left(deadline: Option<Instant>) -> Result<Option<Duration>, AskError> {
    let Some(deadline) = deadline else {
        return Ok(None);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(AskError::Silent)
    } else {
        Ok(Some(left))
    }
}

fn timely(error: io::Error) -> AskError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Silent,
        _ => AskError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::registry::Socket;
    use super::super::server::{Reporter, Server, failed};
    use super::*;
    use crate::ids::KeyId;

    const KEY: KeyId = KeyId([7; 16]);

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn server(keys: &Path, says: &'static str) -> Server {
        let answer = |_, _: &Reporter<'_>| failed(says.to_owned());
        Server::start(Socket::bind(keys).unwrap(), answer).unwrap()
    }

    fn one(keys: &Path) -> Entry {
        registry::list(keys).unwrap().remove(0)
    }

    #[test]
    fn every_mount_is_asked_and_the_one_that_is_stuck_is_named() {
        let keys = tempfile::tempdir().unwrap();
        let quick = || server(keys.path(), "quick");
        let (_a, _b) = (quick(), quick());
        // Listens, and nobody accepts: as a daemon that is stopped, or has not come so far.
        let stuck = Socket::bind(keys.path()).unwrap();
        let deadline = Instant::now() + Duration::from_millis(300);
        let asked = ask_all(keys.path(), &Request::Status, deadline).unwrap();
        assert!(Instant::now() >= deadline);
        let (mut quick, mut silent) = (0, 0);
        for asked in asked {
            match asked.result {
                Err(AskError::Failed(failed)) if failed.message == "quick" => quick += 1,
                Err(AskError::Silent) => silent += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((quick, silent), (2, 1));
        drop(stuck);
    }

    #[test]
    fn what_was_asked_before_anybody_accepted_is_answered() {
        let keys = tempfile::tempdir().unwrap();
        let socket = Socket::bind(keys.path()).unwrap();
        let (asked, was_asked) = channel();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                asked.send(()).unwrap();
                ask_all(keys.path(), &Request::Obey { key_id: KEY }, soon()).unwrap()
            });
            was_asked.recv().unwrap();
            let answer = |request, _: &Reporter<'_>| match request {
                Request::Obey { key_id: KEY } => failed("asked".to_owned()),
                other => failed(format!("{other:?}")),
            };
            let _server = Server::start(socket, answer).unwrap();
            let asked = waiting.join().unwrap();
            assert!(
                matches!(&asked[..], [Asked { result: Err(AskError::Failed(failed)), .. }] if failed.message == "asked")
            );
        });
    }

    #[test]
    fn a_mount_that_ends_while_it_is_asked_has_ended() {
        let keys = tempfile::tempdir().unwrap();
        let (inside, is_inside) = channel();
        let answer = move |_, reporter: &Reporter<'_>| {
            assert!(reporter.report(0, 2, "steps"));
            inside.send(()).unwrap();
            let until = soon();
            while reporter.report(1, 2, "steps") {
                assert!(Instant::now() < until, "nobody said that it is over");
                std::thread::yield_now();
            }
            failed("too late".to_owned())
        };
        let server = Server::start(Socket::bind(keys.path()).unwrap(), answer).unwrap();
        std::thread::scope(|scope| {
            let entry = one(keys.path());
            let asking = scope.spawn(move || {
                let mut steps = 0;
                let result = ask(&entry, &Request::Status, Some(soon()), &mut |_| steps += 1);
                (result, steps)
            });
            is_inside.recv().unwrap();
            drop(server);
            let (result, steps) = asking.join().unwrap();
            assert!(matches!(result, Err(AskError::Ended)), "{result:?}");
            assert!(steps > 0);
        });
        assert!(
            ask_all(keys.path(), &Request::Status, soon())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn nonsense_is_answered_and_does_no_harm() {
        use std::io::{Read, Write};
        let keys = tempfile::tempdir().unwrap();
        let _server = server(keys.path(), "fine");
        for nonsense in [&b"nonsense\n"[..], b"\0\xff\n", &[b'{'; 100_000]] {
            let mut stream = one(keys.path())
                .connect(Duration::from_secs(10))
                .unwrap()
                .unwrap();
            // The server stops reading where a line is too long.
            let _ = stream.write_all(nonsense);
            let mut said = String::new();
            let _ = stream.read_to_string(&mut said);
            assert!(said.is_empty() || said.contains("no request"), "{said}");
        }
        let fine = ask(
            &one(keys.path()),
            &Request::Status,
            Some(soon()),
            &mut |_| (),
        );
        assert!(matches!(fine, Err(AskError::Failed(failed)) if failed.message == "fine"));
    }

    #[test]
    fn a_socket_that_is_gone_is_made_anew() {
        let keys = tempfile::tempdir().unwrap();
        let _server = server(keys.path(), "fine");
        std::fs::remove_dir_all(keys.path().join(crate::kms::MOUNTS)).unwrap();
        let until = soon();
        while registry::list(keys.path()).unwrap().is_empty() {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        let asked = ask_all(keys.path(), &Request::Status, soon()).unwrap();
        assert_eq!(asked.len(), 1);
    }
}
