//! Waiting for a condition, with a generous ceiling: never for a time.

use std::time::{Duration, Instant};

/// How often a condition is looked at. Short beside anything that tests wait for.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks `probe` until it gives a value. `Err` of the probe means "not yet", and the last one is told at the end.
///
/// # Errors
/// When the ceiling is reached: what was awaited, and what the last probe said.
pub fn wait_for<T>(
    what: &str,
    ceiling: Duration,
    mut probe: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + ceiling;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("{what}: not so after {} s", ceiling.as_secs())));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_first_value() {
        let mut asked = 0;
        let value = wait_for("a value", Duration::from_secs(60), || {
            asked += 1;
            anyhow::ensure!(asked == 3, "asked {asked} times");
            Ok(asked)
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn tells_what_the_last_probe_said() {
        let error =
            wait_for::<()>("the door opens", Duration::ZERO, || anyhow::bail!("it is locked")).unwrap_err();
        assert_eq!(format!("{error:#}"), "the door opens: not so after 0 s: it is locked");
    }
}
