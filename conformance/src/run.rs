//! Carries cases out, with a limit on their time.

use crate::{Case, Failure, Subject, Verdict};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What came of a case, and how long it took.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// How far a case is.
#[derive(Clone, Copy, Debug)]
pub enum Step<'o> {
    /// It begins.
    Begins,
    /// It has ended.
    Ended(&'o Outcome),
}

/// Carries `case` out in a thread of its own. A panic is a failure, and so is
/// one that takes longer than `limit`: its thread is left behind.
#[must_use]
pub fn run_case(case: &Case, subject: &Subject, limit: Duration) -> Outcome {
    let began = Instant::now();
    let (report, reported) = channel();
    let (ours, their) = (case.clone(), subject.clone());
    let thread = std::thread::Builder::new().name(case.name().to_owned()).spawn(move || {
        let proved = catch_unwind(AssertUnwindSafe(|| ours.prove(&their)));
        let verdict = proved.unwrap_or_else(|panic| Err(panicked(&*panic)));
        // The watchdog may have given up on this case.
        drop(report.send(verdict));
    });
    let verdict = match thread {
        Err(error) => Verdict::Fail(format!("no thread for the case: {error}")),
        Ok(thread) => match reported.recv_timeout(limit) {
            Ok(verdict) => {
                // So that what the case left to its destructors is done, too.
                drop(thread.join());
                verdict.into()
            }
            Err(RecvTimeoutError::Timeout) => {
                Verdict::Fail(format!("hangs: not done after {} s", limit.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => Verdict::Fail("ended without a verdict".into()),
        },
    };
    Outcome { verdict, took: began.elapsed() }
}

/// Carries out all `cases`, `jobs` at a time, and tells of each as it begins and
/// as it ends; the outcomes are returned in the order of the cases.
pub fn run_all(
    cases: &[Case],
    subject: &Subject,
    limit: Duration,
    jobs: usize,
    tell: impl Fn(&Case, Step<'_>) + Sync,
) -> Vec<Outcome> {
    let waiting = Mutex::new((0..cases.len()).collect::<VecDeque<_>>());
    let done = Mutex::new(Vec::with_capacity(cases.len()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().ok().and_then(|mut waiting| waiting.pop_front());
                    let Some(n) = next else {
                        break;
                    };
                    tell(&cases[n], Step::Begins);
                    let outcome = run_case(&cases[n], subject, limit);
                    tell(&cases[n], Step::Ended(&outcome));
                    if let Ok(mut done) = done.lock() {
                        done.push((n, outcome));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    Failure::new(format!("panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Proof;
    use lastbyte::{Choice, Restrictions};

    fn verdict(case: &Case) -> Verdict {
        let subject = Subject::built_in(Choice::Auto, &Restrictions::none()).unwrap();
        run_case(case, &subject, Duration::from_millis(200)).verdict
    }

    #[test]
    fn a_hang_and_a_panic_are_failures() {
        let hang = Case::new("hang", "", |_| {
            std::thread::sleep(Duration::from_secs(3));
            Ok(Proof::full())
        });
        assert!(matches!(verdict(&hang), Verdict::Fail(text) if text.contains("hangs")));
        let panic = Case::new("panic", "", |_| std::panic::resume_unwind(Box::new("oh")));
        assert!(matches!(verdict(&panic), Verdict::Fail(text) if text.contains("oh")));
    }

    #[test]
    fn outcomes_come_in_the_order_of_the_cases() {
        let subject = Subject::built_in(Choice::Auto, &Restrictions::none()).unwrap();
        let cases: Vec<_> = (0..4_u64)
            .map(|n| {
                Case::new(n.to_string(), "", move |_| {
                    std::thread::sleep(Duration::from_millis(20 * (4 - n)));
                    Ok(Proof::noting(n.to_string()))
                })
            })
            .collect();
        let outcomes = run_all(&cases, &subject, Duration::from_secs(9), 4, |_, _| {});
        let notes: Vec<_> = outcomes.iter().map(|o| o.verdict.to_string()).collect();
        assert_eq!(notes, ["ok (0)", "ok (1)", "ok (2)", "ok (3)"]);
    }
}
