//! Pass sequences: what is done to a graph, one entry a pass, as TOML that people write and fuzzers change.

use ir::{Error, Result};
use serde::{Deserialize, Serialize};

/// A seed for inputs and sampled checks, and the passes in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pipeline {
    /// Makes the inputs.
    #[serde(default)]
    pub seed: u64,
    #[serde(default, rename = "pass")]
    pub passes: Vec<Pass>,
}

/// Which rewrite rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    #[default]
    Portable,
    Runtime,
}

/// How far constants may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    #[default]
    Never,
    Bounded,
    Allowed,
}

/// Which kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    Portable,
    Avx2,
    Avx512,
    /// The widest of this CPU.
    #[default]
    Best,
}

/// One pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Pass {
    /// Exact rewrites.
    Exact {
        #[serde(default)]
        level: Level,
        #[serde(default)]
        growth: Growth,
        /// Rules left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        without: Vec<String>,
        /// Shuffles the rules; 0 keeps their order.
        #[serde(default, skip_serializing_if = "is_zero")]
        order: u64,
    },
    /// Constants computed.
    Fold,
    /// Half floats to float32 between inputs and outputs.
    Widen,
    /// Written as ONNX and read again.
    File,
    /// Printed as text and parsed again.
    Text,
    /// One compression method on one layer: the numbers are taken modulo what there is.
    Compress {
        method: String,
        #[serde(default)]
        layer: usize,
        #[serde(default)]
        candidate: usize,
        /// Whether the method sees the layer's inputs.
        #[serde(default)]
        data: bool,
    },
    /// The search over all layers, without data.
    Search {
        /// Goal in percent of the file's bytes.
        percent: u32,
        /// Only these methods; empty for all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        methods: Vec<String>,
    },
    /// Generated code, run and compared.
    Run {
        #[serde(default)]
        tier: Tier,
    },
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Pass {
    pub fn name(&self) -> &'static str {
        match self {
            Pass::Exact { .. } => "exact",
            Pass::Fold => "fold",
            Pass::Widen => "widen",
            Pass::File => "file",
            Pass::Text => "text",
            Pass::Compress { .. } => "compress",
            Pass::Search { .. } => "search",
            Pass::Run { .. } => "run",
        }
    }
    /// What judging it costs on a graph of so many nodes, in about microseconds of a core.
    pub fn cost(&self, nodes: usize) -> usize {
        let (all, each) = match self {
            Pass::Exact { .. } => (60, 66),
            Pass::Fold | Pass::Widen => (20, 10),
            Pass::File | Pass::Text => (400, 36),
            Pass::Compress { .. } => (10, 90),
            Pass::Search { .. } => (9000, 3000),
            Pass::Run { .. } => (270, 215),
        };
        all + each * nodes
    }
    pub fn exact(level: Level, growth: Growth) -> Pass {
        Pass::Exact { level, growth, without: Vec::new(), order: 0 }
    }
    pub const RUN: Pass = Pass::Run { tier: Tier::Best };
}

impl Pipeline {
    pub fn new(seed: u64, passes: Vec<Pass>) -> Pipeline {
        Pipeline { seed, passes }
    }

    /// # Errors
    /// `Data` when the text is no pipeline, or names a method or rule that does not exist.
    pub fn parse(text: &str) -> Result<Pipeline> {
        let p: Pipeline = toml::from_str(text).map_err(|e| Error::data(e.to_string()))?;
        for pass in &p.passes {
            let methods: &[String] = match pass {
                Pass::Compress { method, .. } => std::slice::from_ref(method),
                Pass::Search { methods, .. } => methods,
                _ => &[],
            };
            if let Some(m) = methods.iter().find(|m| lossy::methods::find(m).is_none()) {
                let all: Vec<&str> = lossy::METHODS.iter().map(|m| m.name()).collect();
                return Err(Error::data(format!("there is no method '{m}'; there are {}", all.join(", "))));
            }
            if let Pass::Exact { without, .. } = pass
                && let Some(r) = without.iter().find(|r| !exact::rules().any(|x| x.name == r.as_str()))
            {
                return Err(Error::data(format!("there is no rule '{r}'")));
            }
        }
        Ok(p)
    }

    pub fn print(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    pub fn names(&self) -> String {
        let all: Vec<&str> = self.passes.iter().map(Pass::name).collect();
        all.join(" → ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_are_text() {
        let p = Pipeline::new(
            7,
            vec![
                Pass::Exact {
                    level: Level::Runtime,
                    growth: Growth::Allowed,
                    without: vec!["drop-double-cast".into()],
                    order: 3,
                },
                Pass::Fold,
                Pass::Compress { method: "int4".into(), layer: 1, candidate: 2, data: true },
                Pass::Search { percent: 40, methods: vec![] },
                Pass::RUN,
            ],
        );
        assert_eq!(toml::from_str::<Pipeline>(&p.print()).unwrap(), p);
        let short = Pipeline::parse("[[pass]]\nname = \"exact\"\n[[pass]]\nname = \"run\"").unwrap();
        assert_eq!(short.passes, [Pass::exact(Level::Portable, Growth::Never), Pass::RUN]);
        assert!(Pipeline::parse("[[pass]]\nname = \"nothing\"").is_err());
        assert!(Pipeline::parse("[[pass]]\nname = \"compress\"\nmethod = \"magic\"").is_err());
        assert!(Pipeline::parse("[[pass]]\nname = \"exact\"\nwithout = [\"magic\"]").is_err());
    }
}
