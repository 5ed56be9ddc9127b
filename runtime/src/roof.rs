//! What the machine can do at most, and which of its limits holds a step back.

use kernels::{Pool, Tier, probe};
use std::sync::Mutex;

/// A limit of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roof {
    /// Fused multiply-adds of float32.
    Float,
    /// Products of bytes.
    Integer,
    /// Bandwidth of the second-level cache.
    L2,
    /// Bandwidth of the last-level cache.
    L3,
    /// Bandwidth of memory.
    Memory,
}

impl std::fmt::Display for Roof {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Roof::Float => "fp32 FMA",
            Roof::Integer => "int8 dot",
            Roof::L2 => "L2 bandwidth",
            Roof::L3 => "L3 bandwidth",
            Roof::Memory => "DRAM bandwidth",
        })
    }
}

/// Rates of all threads together.
#[derive(Debug, Clone, Copy)]
pub struct Roofs {
    pub flops: f64,
    /// Of 8-bit products, a multiplication and an addition counted as two.
    pub int8: f64,
    /// Bytes a second.
    pub l2: f64,
    pub l3: f64,
    pub memory: f64,
    /// Sizes of the caches in bytes; that of the second level is one core's.
    l2_bytes: f64,
    l3_bytes: f64,
    threads: f64,
}

impl Roofs {
    /// Measures them.
    pub fn measure(pool: &dyn Pool) -> Roofs {
        let tier = Tier::best();
        let (l2_bytes, l3_bytes) = (cache_bytes(2).unwrap_or(1 << 20), cache_bytes(3).unwrap_or(32 << 20));
        let threads = pool.threads().max(1);
        let each = |f: &(dyn Fn() -> f64 + Sync)| {
            let rates = Mutex::new(0.0);
            pool.run(threads, &|_| {
                let rate = f();
                *rates.lock().unwrap_or_else(|e| e.into_inner()) += rate;
            });
            rates.into_inner().unwrap_or_else(|e| e.into_inner())
        };
        let read = |bytes: usize| each(&|| probe::read_bandwidth(tier, &vec![1.0; bytes / 4]));
        Roofs {
            flops: each(&|| probe::peak_f32(tier)),
            int8: each(&|| probe::peak_i8(tier)),
            l2: read(l2_bytes / 2),
            l3: read(l3_bytes / 3 / threads),
            memory: read((3 * l3_bytes).min(128 << 20) / threads),
            l2_bytes: l2_bytes as f64,
            l3_bytes: l3_bytes as f64,
            threads: threads as f64,
        }
    }

    /// The bandwidth that serves a working set of `bytes`.
    fn serving(&self, bytes: f64) -> (Roof, f64) {
        if bytes <= self.l2_bytes * self.threads {
            (Roof::L2, self.l2)
        } else if bytes <= self.l3_bytes {
            (Roof::L3, self.l3)
        } else {
            (Roof::Memory, self.memory)
        }
    }

    /// The least seconds a step takes, and the limit that sets them. It does `flops` operations, reads and writes `moving`
    /// bytes that the steps around it leave in a cache, and reads `constant` bytes that the whole run, of `footprint`
    /// bytes, leaves in one.
    pub fn least(
        &self,
        integers: bool,
        flops: f64,
        moving: f64,
        constant: f64,
        footprint: f64,
    ) -> (Roof, f64) {
        let (compute, rate) = if integers { (Roof::Integer, self.int8) } else { (Roof::Float, self.flops) };
        let ((near, near_rate), (far, far_rate)) = (self.serving(moving), self.serving(footprint));
        let (near_seconds, far_seconds) = (moving / near_rate, constant / far_rate);
        if flops / rate >= near_seconds + far_seconds {
            (compute, flops / rate)
        } else {
            (if near_seconds > far_seconds { near } else { far }, near_seconds + far_seconds)
        }
    }
}

/// Size of the data cache of a level, as Linux tells it.
fn cache_bytes(level: usize) -> Option<usize> {
    let read = |index: usize, file: &str| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}")).ok()
    };
    let index = (0..8).find(|&i| {
        read(i, "level").is_some_and(|l| l.trim() == level.to_string())
            && read(i, "type").is_some_and(|t| t.trim() != "Instruction")
    })?;
    let size = read(index, "size")?;
    let size = size.trim();
    let (number, unit) = size.split_at(size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len()));
    let unit = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => 1,
    };
    number.parse::<usize>().ok()?.checked_mul(unit).filter(|&b| b > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roofs() -> Roofs {
        Roofs {
            flops: 100e9,
            int8: 400e9,
            l2: 200e9,
            l3: 80e9,
            memory: 20e9,
            l2_bytes: 1e6,
            l3_bytes: 32e6,
            threads: 1.0,
        }
    }

    #[test]
    fn the_nearest_limit_is_named() {
        let of = |integers, flops, moving, constant, footprint| {
            let (roof, seconds) = roofs().least(integers, flops, moving, constant, footprint);
            (roof, (seconds * 1e9).round())
        };
        assert_eq!(of(false, 1e9, 1e6, 0.0, 1e6), (Roof::Float, 1e7));
        assert_eq!(of(true, 1e9, 1e6, 0.0, 1e6), (Roof::Integer, 2.5e6));
        assert_eq!(of(false, 0.0, 1e6, 0.0, 1e6), (Roof::L2, 5e3));
        assert_eq!(of(false, 0.0, 8e6, 0.0, 1e6), (Roof::L3, 1e5));
        assert_eq!(of(false, 1e6, 1e3, 2e6, 90e6), (Roof::Memory, 100005.0));
    }

    #[test]
    fn measured_rates_are_rates() {
        let r = Roofs::measure(&kernels::Serial);
        for rate in [r.flops, r.int8, r.l2, r.l3, r.memory] {
            assert!(rate.is_finite() && rate > 1e8, "{r:?}");
        }
    }
}
