//! Every case on every backend over every transport, and on the io_uring and
//! epoll backends with facilities switched off.

#![forbid(unsafe_code)]

use lastbyte::{BackendKind, Choice, Transport};
use lastbyte_conformance::{Subject, Verdict, cases, run_case};
use libtest_mimic::{Arguments, Failed, Trial};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Only a hang takes that long.
const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    let arguments = Arguments::from_args();
    let remarks = Arc::new(Mutex::new(Vec::new()));
    let mut trials = Vec::new();
    const PLAIN: &[Transport] = &[Transport::Plain];
    const USER_TLS: &[Transport] = &[Transport::Plain, Transport::UserTls];
    const EACH: &[Transport] = &[Transport::Plain, Transport::UserTls, Transport::KernelTls];
    for (kind, disabled, transports) in [
        (BackendKind::IoUring, "", EACH),
        (BackendKind::IoUring, "uring-taskrun,uring-accept", PLAIN),
        (BackendKind::IoUring, "uring-receive,uring-timestamps", PLAIN),
        (BackendKind::IoUring, "uring-fixed-buffers,uring-vectored", PLAIN),
        (BackendKind::IoUring, "uring-send,uring-zerocopy", PLAIN),
        (
            BackendKind::IoUring,
            "uring-taskrun,uring-accept,uring-receive,uring-send,uring-vectored,uring-zerocopy,\
             uring-timestamps,uring-fixed-buffers",
            PLAIN,
        ),
        (BackendKind::IoUring, "timestamps", PLAIN),
        (BackendKind::IoUring, "zerocopy,sendfile", PLAIN),
        (BackendKind::IoUring, "tcp-info", PLAIN),
        (BackendKind::Epoll, "", EACH),
        (BackendKind::Fallback, "", USER_TLS),
        (BackendKind::Epoll, "timestamps", USER_TLS),
        (BackendKind::Epoll, "zerocopy,sendfile", USER_TLS),
        (BackendKind::Epoll, "tcp-info", USER_TLS),
    ] {
        let without = if disabled.is_empty() { "" } else { ",no-" };
        let name = format!("{kind}{without}{}", disabled.replace(',', ",no-"));
        let opened = disabled
            .parse()
            .map_err(|error: lastbyte::UnknownFacility| error.to_string())
            .and_then(|restrictions| {
                Subject::built_in(Choice::Only(kind), &restrictions).map_err(|error| error.0)
            });
        match opened {
            Ok(subject) => {
                for transport in transports {
                    match subject.over(*transport) {
                        Ok(subject) => {
                            trials.extend(of(&format!("{name}/{transport}"), &subject, &remarks));
                        }
                        Err(why) => trials.push(Trial::test(format!("{name}/{transport}"), || {
                            Err(Failed::from(why.0))
                        })),
                    }
                }
            }
            // A build for another Unix contains only the fallback.
            Err(why) if !lastbyte_backends::BUILT.contains(&kind) => {
                trials.push(
                    Trial::test(format!("{name} ({why})"), || Ok(())).with_ignored_flag(true),
                );
            }
            Err(why) => trials.push(Trial::test(name, || Err(Failed::from(why)))),
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Ok(mut remarks) = remarks.lock() {
        remarks.sort();
        remarks.iter().for_each(|remark: &String| println!("{remark}"));
    }
    conclusion.exit();
}

fn of(name: &str, subject: &Subject, remarks: &Arc<Mutex<Vec<String>>>) -> Vec<Trial> {
    let transport = subject.transport();
    cases()
        .into_iter()
        .filter(|case| case.is_about(transport))
        .map(|case| {
            let subject = subject.clone();
            let remarks = Arc::clone(remarks);
            let trial = format!("{name}/{}", case.name());
            Trial::test(trial.clone(), move || {
                let outcome = run_case(&case, &subject, LIMIT);
                match outcome.verdict {
                    Verdict::Fail(message) => Err(Failed::from(message)),
                    Verdict::Pass { .. } => Ok(()),
                    verdict => {
                        if let Ok(mut remarks) = remarks.lock() {
                            remarks.push(format!("{trial}: {verdict}"));
                        }
                        Ok(())
                    }
                }
            })
        })
        .collect()
}
