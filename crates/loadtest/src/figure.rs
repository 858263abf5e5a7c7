//! One measured number, and all that one run found out. How they are shown is in `report.rs`.

use crate::failure::Failure;
use crate::numbers::float;
use crate::sequence::Tally;
use crate::stage::Measured;
use serde::Serialize;

/// Which direction of a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Better {
    Higher,
    Lower,
    /// The figure only explains others.
    Neither,
}

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) better: Better,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, value: f64, better: Better) -> Self {
        Self { name: name.into(), unit, value, better }
    }

    /// Rate and CPU of a measured phase that counted `what`, each with `payload` bytes of payload.
    pub(crate) fn of_phase(what: &str, payload: Option<usize>, measured: &Measured) -> Vec<Self> {
        let rate = measured.rate();
        let mut figures = vec![Self::new(what, "1/s", rate, Better::Higher)];
        if let Some(payload) = payload {
            let bytes = rate * float(crate::numbers::count(payload));
            figures.push(Self::new("payload", "MB/s", bytes / 1e6, Better::Higher));
        }
        if let Some(cpu) = measured.broker_cpu {
            figures.push(Self::new(Self::BROKER_CPU, "s/M", measured.per_million(cpu), Better::Lower));
            figures.push(Self::new("broker busy", "CPUs", cpu / measured.seconds, Better::Neither));
        }
        let own = measured.per_million(measured.own_cpu);
        figures.push(Self::new("generator CPU", "s/M", own, Better::Neither));
        figures
    }

    /// Name of the figure the goals are compared by.
    pub(crate) const BROKER_CPU: &'static str = "broker CPU";
}

/// What one run found out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Figure>,
    pub(crate) tally: Tally,
    /// Why the figures are not to be trusted; empty if they are.
    pub(crate) problems: Vec<String>,
}

impl Outcome {
    /// The outcome of a run with its account; whatever is wrong with that is a problem.
    pub(crate) fn new(figures: Vec<Figure>, tally: Tally) -> Self {
        Self { figures, tally, problems: tally.problem().into_iter().collect() }
    }

    /// The outcome of a run that came to nothing.
    pub(crate) fn failed(failure: &Failure) -> Self {
        Self { problems: vec![failure.to_string()], ..Self::default() }
    }
}
