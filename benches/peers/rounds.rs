//! The order of a run: round after round, workload after workload, contender after contender, each round beginning with
//! another contender. One contender is mounted at a time, and anew for each measurement; who has failed is left out and
//! remembered with the reason.

use std::collections::BTreeSet;
use std::path::Path;

use crate::contenders::{Contender, Place};
use crate::inputs::Inputs;
use crate::machine::Backing;
use crate::mounted::Mounted;
use crate::programs::{self, Outcome};
use crate::results::{Cell, Results};
use crate::workloads::{Bed, Extent, Fixture, Workload};

/// What a run needs besides contenders and workloads.
pub struct Setting<'a> {
    /// Directory of all contenders.
    pub root: &'a Path,
    pub inputs: &'a Inputs,
    pub extent: Extent,
    pub backing: &'a Backing,
}

/// A contender in a run.
struct Entrant<'a> {
    contender: &'static Contender,
    setting: &'a Setting<'a>,
    place: Option<Place>,
    mounted: Option<Mounted>,
    fixtures: BTreeSet<Fixture>,
    /// Why it takes part no longer.
    out: Option<String>,
}

/// Runs everything, and fills in the results as they come. An error only where a signal has ended the run.
pub fn run(
    setting: &Setting,
    contenders: &[&'static Contender],
    workloads: &[&'static Workload],
    rounds: usize,
    results: &mut Results,
) -> Outcome<()> {
    let mut entrants: Vec<Entrant> = contenders
        .iter()
        .map(|contender| Entrant::new(contender, setting))
        .collect();
    for round in 0..rounds {
        for (row, workload) in workloads.iter().enumerate() {
            eprintln!("round {} of {rounds}: {}", round + 1, workload.name);
            for turn in 0..entrants.len() {
                let column = (turn + round) % entrants.len();
                let cell = &mut results.workloads[row].results[column];
                entrants[column].take_turn(workload, cell);
                if programs::stopped() {
                    return Err("stopped by a signal".to_owned());
                }
            }
        }
    }
    Ok(())
}

impl<'a> Entrant<'a> {
    fn new(contender: &'static Contender, setting: &'a Setting<'a>) -> Self {
        let mut entrant = Self {
            contender,
            setting,
            place: None,
            mounted: None,
            fixtures: BTreeSet::new(),
            out: None,
        };
        match Place::new(setting.root, contender) {
            Ok(place) => {
                entrant.out = contender.make(&place).err();
                entrant.place = Some(place);
            }
            Err(error) => entrant.out = Some(error),
        }
        entrant
    }

    /// Measures once, unless this cell or this contender has failed before.
    fn take_turn(&mut self, workload: &'static Workload, cell: &mut Cell) {
        if cell.failure.is_some() {
            return;
        }
        let measured = match &self.out {
            Some(reason) => Err(reason.clone()),
            None => self.measure(workload),
        };
        match measured {
            Ok(figure) => cell.samples.push(figure),
            Err(reason) if programs::stopped() => eprintln!("  {reason}"),
            Err(reason) => {
                eprintln!("  {}: FAILED: {reason}", self.contender.name);
                cell.failure = Some(reason);
                // A mount that has failed once begins anew.
                if let Err(error) = self.unmount() {
                    self.out.get_or_insert(error);
                }
            }
        }
    }

    fn measure(&mut self, workload: &'static Workload) -> Outcome<f64> {
        if let Some(fixture) = workload.needs {
            self.provide(fixture)?;
        }
        if workload.cold {
            self.unmount()?;
            self.setting.backing.forget();
        }
        self.mount()?;
        let figure = workload.measure(&Bed {
            directory: self.directory()?,
            inputs: self.setting.inputs,
            extent: self.setting.extent,
            name: workload.name,
        });
        self.look_around()?;
        if !self.contender.slow_to_mount {
            self.unmount()?;
        }
        figure
    }

    /// Puts the fixture there if it is missing, outside of what is measured.
    fn provide(&mut self, fixture: Fixture) -> Outcome<()> {
        if self.fixtures.contains(&fixture) {
            return Ok(());
        }
        self.mount()?;
        let directory = self.directory()?;
        let made = fixture.make(directory, self.setting.inputs, self.setting.extent);
        made.map_err(|reason| format!("preparing: {reason}"))?;
        self.fixtures.insert(fixture);
        if !self.contender.slow_to_mount {
            self.unmount()?;
        }
        Ok(())
    }

    /// Workloads make and remove fixtures.
    fn look_around(&mut self) -> Outcome<()> {
        let directory = self.directory()?;
        let all = [Fixture::Data, Fixture::Tree, Fixture::Repository];
        let there = all.into_iter().filter(|fixture| fixture.is_in(directory));
        self.fixtures = there.collect();
        Ok(())
    }

    fn directory(&self) -> Outcome<&Path> {
        let place = self.place.as_ref().ok_or("it has no directory")?;
        Ok(&place.mountpoint)
    }

    /// A contender that does not mount is out: waiting for it again would take long.
    fn mount(&mut self) -> Outcome<()> {
        let Some(place) = &self.place else {
            return Err("it has no directory".to_owned());
        };
        if self.mounted.is_none() {
            match self.contender.mount(place) {
                Ok(mounted) => self.mounted = mounted,
                Err(reason) => {
                    self.out = Some(reason.clone());
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    fn unmount(&mut self) -> Outcome<()> {
        self.mounted.take().map_or(Ok(()), Mounted::unmount)
    }
}
