//! The instruction sets kernels are written for, detected once.

use std::sync::OnceLock;

/// An instruction set, ordered from the one every CPU has to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Plain Rust, for any target.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
}

impl Tier {
    /// The widest tier of this CPU.
    pub fn best() -> Tier {
        static BEST: OnceLock<Tier> = OnceLock::new();
        *BEST.get_or_init(detect)
    }

    /// Every tier of this CPU, narrowest first.
    pub fn available() -> &'static [Tier] {
        const ALL: &[Tier] = &[Tier::Portable, Tier::Avx2, Tier::Avx512];
        match Tier::best() {
            Tier::Portable => &ALL[..1],
            Tier::Avx2 => &ALL[..2],
            Tier::Avx512 => ALL,
        }
    }

    /// This tier, or the best one where the CPU does not reach it: what a safe entry point must run on.
    pub fn usable(self) -> Tier {
        self.min(Tier::best())
    }
}

/// Whether the CPU says that Intel made it: of a choice between code that gives the same results, never of what runs.
pub(crate) fn is_intel() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    let is = {
        let vendor = std::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
    };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let is = false;
    is
}

/// Whether the CPU permutes bytes across a register of 64, which [`Tier::Avx512`] does not promise.
pub(crate) fn has_vbmi() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512vbmi");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// Whether the CPU expands bytes by a mask, which [`Tier::Avx512`] does not promise.
pub(crate) fn has_vbmi2() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512vbmi2");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// What this CPU has of the instructions that kernels and generated code make use of, as text.
pub fn features() -> String {
    #[allow(unused_mut)] // other architectures add nothing
    let mut has = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! note {
            ($($f:tt)*) => { $(if is_x86_feature_detected!($f) { has.push($f); })* };
        }
        note!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt");
        note!("avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avx512bf16" "avx512vbmi" "avx512vbmi2" "avx512bitalg");
        note!("avx512fp16" "avxvnni");
    }
    has.join(" ")
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Tier {
    macro_rules! has {
        ($($f:tt)*) => { $(is_x86_feature_detected!($f))&&* };
    }
    if !has!("avx2" "fma" "f16c") {
        Tier::Portable
    } else if has!("avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni") {
        Tier::Avx512
    } else {
        Tier::Avx2
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Tier {
    Tier::Portable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_out_of_reach_becomes_the_best() {
        for tier in [Tier::Portable, Tier::Avx2, Tier::Avx512] {
            assert!(Tier::available().contains(&tier.usable()));
        }
        assert_eq!(Tier::available().last(), Some(&Tier::best()));
    }
}
