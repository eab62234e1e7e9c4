//! How late the loop was, as counts by powers of two. Pure.

/// Counts of times in nanoseconds; a time of up to 2^n falls into class n.
#[derive(Clone, Debug)]
pub(crate) struct Lags([u64; 64]);

impl Default for Lags {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Lags {
    pub(crate) fn add(&mut self, nanoseconds: i64) {
        let class = u64::try_from(nanoseconds).unwrap_or(0).checked_ilog2().map_or(0, |n| n + 1);
        if let Some(count) = usize::try_from(class).ok().and_then(|class| self.0.get_mut(class)) {
            *count += 1;
        }
    }

    /// A bound that 99 of 100 stayed below; absent for none.
    pub(crate) fn p99_ns(&self) -> Option<i64> {
        let all: u64 = self.0.iter().sum();
        let rank = all.checked_sub(1)? * 99 / 100;
        let mut passed = 0;
        let class = self.0.iter().position(|count| {
            passed += count;
            passed > rank
        })?;
        1_i64.checked_shl(u32::try_from(class).ok()?).filter(|bound| *bound > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_next_power_of_two() {
        let mut lags = Lags::default();
        assert_eq!(lags.p99_ns(), None);
        (0..990).for_each(|_| lags.add(1000));
        (0..10).for_each(|_| lags.add(5_000_000));
        assert_eq!(lags.p99_ns(), Some(1024));
        lags.add(5_000_000);
        assert_eq!(lags.p99_ns(), Some(8_388_608));
        lags.add(-5);
        lags.add(0);
        lags.add(i64::MAX);
    }
}
