//! Where the time of a run goes.

/// One step of a compiled program.
#[derive(Debug, Clone)]
pub struct Step {
    pub name: String,
    pub kind: String,
    /// Median nanoseconds.
    pub ns: f64,
    /// Share of the sum of all steps.
    pub share: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Fraction of the machine's roof for this mix of operations and bytes.
    pub roof: Option<f64>,
}

/// Steps in order, and the measured roofs they are compared with.
#[derive(Debug, Clone)]
pub struct Profile {
    pub steps: Vec<Step>,
    pub peak_gflops: f64,
    pub peak_gbytes: f64,
}
