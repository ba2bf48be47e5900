//! How far long work has come: one line on standard error, only on a terminal, never with `--quiet`. Knows no noun.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::Global;

/// How often a line is drawn anew while nothing is reported.
const TICK: Duration = Duration::from_millis(120);

/// A line that says how far the work has come; gone when dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Work of unknown length: `what` is the present participle, as in "Counting".
    #[must_use]
    pub fn counter(global: &Global, what: &'static str) -> Self {
        Self::new(global, None, what, "{spinner} {prefix} {msg} ({elapsed})")
    }

    /// Work of `total` steps.
    #[must_use]
    pub fn bar(global: &Global, what: &'static str, total: u64) -> Self {
        let template = "{prefix} [{bar:30}] {pos}/{len} {msg} ({eta} left)";
        Self::new(global, Some(total), what, template)
    }

    fn new(global: &Global, total: Option<u64>, what: &'static str, template: &str) -> Self {
        // Hides itself where standard error is no terminal.
        let target = if global.quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(total, target).with_prefix(what);
        // A template that does not parse would show the default one, which says less.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// So many steps are done.
    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Says more, as in "12,000 objects".
    pub fn say(&self, text: impl Into<Cow<'static, str>>) {
        self.0.set_message(text);
    }

    /// Whether anybody sees it: what it would say need not be put together otherwise.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Runs `work` with the line out of the way, so that it can write to the terminal.
    pub fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.suspend(work)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_where_only_results_are_wanted() {
        let global = Global {
            keys: None,
            passphrase_file: None,
            passphrase_command: None,
            quiet: true,
            verbose: 0,
        };
        for progress in [
            Progress::counter(&global, "Counting"),
            Progress::bar(&global, "Removing", 7),
        ] {
            progress.set(3);
            assert!(!progress.is_shown());
        }
    }
}
