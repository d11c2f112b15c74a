//! Statistics: medians, and medians of ratios of consecutive runs.
//!
//! A quotient of two medians would compare a run on an idle machine with one on a busy machine.

use serde::Serialize;

/// The cost of one run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Wall time from the start of the command to its end.
    pub seconds: f64,
    /// CPU time of the command and its children on this machine, without the hosts.
    pub cpu_seconds: f64,
    /// CPU time of the processes on all hosts, if there are hosts that tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_cpu_seconds: Option<f64>,
    /// Bytes over the network, in both directions.
    pub bytes: u64,
}

/// Ours against theirs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// Our wall time divided by theirs: the median over the rounds. Below 1 we are faster.
    pub ratio: f64,
    /// Our medians.
    pub ours: Figures,
    /// Their medians.
    pub theirs: Figures,
}

/// Compares runs of the same rounds; `None` without runs.
pub fn compare(ours: &[Figures], theirs: &[Figures]) -> Option<Comparison> {
    let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours.seconds / theirs.seconds);
    Some(Comparison { ratio: median(ratios)?, ours: medians(ours)?, theirs: medians(theirs)? })
}

fn medians(runs: &[Figures]) -> Option<Figures> {
    Some(Figures {
        seconds: median(runs.iter().map(|run| run.seconds))?,
        cpu_seconds: median(runs.iter().map(|run| run.cpu_seconds))?,
        host_cpu_seconds: median(runs.iter().filter_map(|run| run.host_cpu_seconds)),
        bytes: median(runs.iter().map(|run| run.bytes as f64))? as u64,
    })
}

/// The median; of an even number, the mean of the middle two.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_values_is_the_middle_or_the_mean_of_two() {
        let cases: &[(&[f64], Option<f64>)] = &[
            (&[], None),
            (&[3.0], Some(3.0)),
            (&[3.0, 1.0], Some(2.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[4.0, 1.0, 3.0, 2.0], Some(2.5)),
        ];
        for (values, want) in cases {
            assert_eq!(median(values.iter().copied()), *want, "{values:?}");
        }
    }

    #[test]
    fn ratios_are_those_of_pairs() {
        let runs = |seconds: &[f64]| -> Vec<_> {
            seconds
                .iter()
                .map(|&seconds| Figures { seconds, cpu_seconds: seconds / 2.0, host_cpu_seconds: None, bytes: 7 })
                .collect()
        };
        // The machine was ten times slower in the second round, for both.
        let compared = compare(&runs(&[1.0, 10.0, 1.5]), &runs(&[2.0, 20.0, 2.0])).unwrap();
        assert!((compared.ratio - 0.5).abs() < 1e-9, "{compared:?}");
        assert_eq!(compared.ours, Figures { seconds: 1.5, cpu_seconds: 0.75, host_cpu_seconds: None, bytes: 7 });
        assert_eq!(compared.theirs, Figures { seconds: 2.0, cpu_seconds: 1.0, host_cpu_seconds: None, bytes: 7 });
        assert_eq!(compare(&[], &[]), None);
    }
}
