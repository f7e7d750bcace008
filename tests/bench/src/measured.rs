//! Everything that was measured, and the figures that the table's rows make of it. Pure.

use std::collections::BTreeMap;

use crate::exact::Count;
use crate::isolation::{self, Case, Fared, Isolation};
use crate::memory::{self, Growth};
use crate::peers::{Kind, Mode};
use crate::ratio::Figure;
use crate::rounds::{Load, Measure, Rounds, Subject};
use crate::rows::{MIRRORED, PLAIN, Row, SMALL, Source, Unit};

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// By how requests came.
    pub(crate) rounds: BTreeMap<Load, Rounds>,
    /// One value of each repetition.
    pub(crate) exact: BTreeMap<(Count, Kind, Mode), Result<Vec<f64>, String>>,
    /// Resident bytes before the first request.
    pub(crate) idle: BTreeMap<Kind, u64>,
    /// Resident bytes that each client's connection adds, once it has been asked on.
    pub(crate) idle_connection: BTreeMap<Kind, f64>,
    /// How users fared before faulty mirrors.
    pub(crate) isolation: Isolation,
    /// What mirrors that keep their copies made a proxy grow by.
    pub(crate) growth: BTreeMap<(Case, Kind), Result<Growth, String>>,
    /// Peers that could not be started, and why.
    pub(crate) absent: BTreeMap<Kind, String>,
}

impl Measured {
    /// The figure of a row.
    ///
    /// # Errors
    /// Why it is missing.
    pub(crate) fn figure(&self, row: &Row) -> Result<Figure, String> {
        match row.source {
            Source::Timed(load, measure, mode, (kind, other)) => {
                self.of_rounds((load, measure), &[Kind::Umbra, kind], |of| {
                    Some(of(Kind::Umbra, mode)? / of(kind, other)?)
                })
            }
            Source::MirrorCost => {
                let cpu = (Load::Closed(SMALL), Measure::Cpu);
                self.of_rounds(cpu, &[Kind::Umbra, Kind::Raw], |of| {
                    let cost = |kind| Some(of(kind, MIRRORED)? - of(kind, PLAIN)?);
                    Some(cost(Kind::Umbra)? / cost(Kind::Raw).filter(|cost| *cost > 0.0)?)
                })
            }
            Source::Workers => self.of_workers(|ours, raws| Some(ours? / raws?)),
            Source::WorkersAlone => self.of_workers(|ours, _| ours),
            Source::Isolated(measure) => self.worst(|fared| fared.ratio(Kind::Umbra, measure)),
            Source::Control(measure) => self.worst(|fared| fared.control(Kind::Umbra, measure)),
            Source::Failed => figure(vec![self.fared()?.map(|(_, fared)| fared.failed as f64).sum()]),
            Source::Grown(case, unit) => figure(vec![self.grown(case, unit)?]),
            Source::Idle(kind) => {
                if let Some(why) = self.absent.get(&kind) {
                    return Err(why.clone());
                }
                let bytes =
                    |kind| self.idle.get(&kind).map(|bytes| *bytes as f64).ok_or("it was not asked for");
                figure(vec![bytes(Kind::Umbra)? / bytes(kind)?])
            }
            Source::IdleConnection => {
                let bytes = self.idle_connection.get(&Kind::Umbra).ok_or("it was not asked for")?;
                figure(vec![*bytes])
            }
            Source::Own(count, mode) => figure(self.exactly(count, Kind::Umbra, mode)?.to_vec()),
            Source::Counted(count, mode, (kind, other)) => {
                let ours = self.exactly(count, Kind::Umbra, mode)?;
                figure(paired(ours, self.exactly(count, kind, other)?, |ours, theirs| ours / theirs))
            }
            Source::MirrorCount(count, kind) => {
                let cost = |kind| {
                    let (with, without) =
                        (self.exactly(count, kind, MIRRORED)?, self.exactly(count, kind, PLAIN)?);
                    Ok::<_, String>(paired(with, without, |with, without| with - without))
                };
                figure(paired(&cost(Kind::Umbra)?, &cost(kind)?, |ours, theirs| ours / theirs))
            }
        }
    }

    /// Whether the machine was too unsteady for this row's figure to prove anything.
    pub(crate) fn is_noisy(&self, row: &Row) -> bool {
        let load = match row.source {
            Source::Timed(load, ..) => load,
            Source::MirrorCost => Load::Closed(SMALL),
            Source::Workers | Source::WorkersAlone => Load::Workers,
            // A case that proves that users notice is no less proof beside others that prove nothing.
            Source::Isolated(measure) => {
                let Some(most) = isolation::MOST.into_iter().find(|(of, _)| *of == measure) else {
                    return false;
                };
                let any = |is: &dyn Fn(&Fared) -> bool| {
                    self.fared().is_ok_and(|mut all| all.any(|(_, fared)| is(fared)))
                };
                return !any(&|fared| fared.is_over(Kind::Umbra, most))
                    && any(&|fared| !fared.is_sound(Kind::Umbra));
            }
            // Failures say nothing where there are some without a mirror, too.
            Source::Failed => {
                return self.fared().is_ok_and(|mut all| all.any(|(_, fared)| fared.failed_without > 0));
            }
            _ => return false,
        };
        self.rounds.get(&load).is_none_or(|rounds| !rounds.is_sound())
    }

    fn of_rounds(
        &self,
        (load, measure): (Load, Measure),
        kinds: &[Kind],
        value: impl Fn(&dyn Fn(Kind, Mode) -> Option<f64>) -> Option<f64>,
    ) -> Result<Figure, String> {
        if let Some(why) = kinds.iter().find_map(|kind| self.absent.get(kind)) {
            return Err(why.clone());
        }
        let rounds = self.rounds.get(&load).ok_or("it was not asked for")?;
        let values = rounds.values(|round| value(&|kind, mode| round.mean(Subject { kind, mode }, measure)));
        Figure::of(&values).ok_or_else(|| {
            let void = rounds.void.iter().find(|(subject, _)| kinds.contains(&subject.kind));
            void.map_or_else(|| "no round counts".to_owned(), |(_, why)| format!("every run is void: {why}"))
        })
    }

    /// Of umbra's two workers over one, and of raw's.
    fn of_workers(&self, value: impl Fn(Option<f64>, Option<f64>) -> Option<f64>) -> Result<Figure, String> {
        let load = (Load::Workers, Measure::Cpu);
        self.of_rounds(load, &[Kind::Pair, Kind::RawPair], |of| {
            let ratio = |two, one| Some(of(two, PLAIN)? / of(one, PLAIN)?);
            value(ratio(Kind::Pair, Kind::Umbra), ratio(Kind::RawPair, Kind::Raw))
        })
    }

    /// umbra's cases, all of which were measured.
    fn fared(&self) -> Result<impl Iterator<Item = (Case, &Fared)>, String> {
        let ours = || self.isolation.iter().filter(|((_, kind), _)| *kind == Kind::Umbra);
        if ours().next().is_none() {
            return Err("it was not asked for".to_owned());
        }
        let mut all = Vec::new();
        for ((case, _), fared) in ours() {
            all.push((*case, fared.as_ref().map_err(|why| format!("{}: {why}", case.name()))?));
        }
        Ok(all.into_iter())
    }

    fn worst(&self, of: impl Fn(&Fared) -> Option<Figure>) -> Result<Figure, String> {
        let mut worst: Option<Figure> = None;
        for (case, fared) in self.fared()? {
            let void = || fared.rounds.void.first().map_or("no round counts", |(_, why)| why).to_owned();
            let ratio = of(fared).ok_or_else(|| format!("{}: {}", case.name(), void()))?;
            if worst.is_none_or(|worst| worst.value < ratio.value) {
                worst = Some(ratio);
            }
        }
        worst.ok_or_else(|| "it was not asked for".to_owned())
    }

    fn grown(&self, case: Case, unit: Unit) -> Result<f64, String> {
        let of = |kind| match self.growth.get(&(case, kind)) {
            Some(growth) => growth.clone(),
            None => Err(self.absent.get(&kind).cloned().unwrap_or_else(|| "it was not asked for".to_owned())),
        };
        let ours = of(Kind::Umbra)?;
        Ok(match unit {
            Unit::Cap => ours.bytes() / memory::CAP,
            Unit::Connections => ours.connections() / memory::CONNECTIONS,
            Unit::Envoy => ours.bytes() / of(Kind::Envoy)?.bytes(),
        })
    }

    fn exactly(&self, count: Count, kind: Kind, mode: Mode) -> Result<&[f64], String> {
        if let Some(why) = self.absent.get(&kind) {
            return Err(why.clone());
        }
        let values = self.exact.get(&(count, kind, mode)).ok_or("it was not asked for")?;
        values.as_deref().map_err(Clone::clone)
    }
}

/// By repetition; of the shorter one's length.
fn paired(these: &[f64], those: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    these.iter().zip(those).map(|(this, that)| of(*this, *that)).collect()
}

fn figure(values: Vec<f64>) -> Result<Figure, String> {
    Figure::of(&values).ok_or_else(|| "it is no number".to_owned())
}

#[cfg(test)]
mod tests;
