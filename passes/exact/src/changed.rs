//! Where an e-graph changed, and how far above.

use crate::facts::Egraph;
use egg::Id;

/// Classes by their distance above the nearest one that changed.
pub struct Changed {
    /// By class; `None` where nothing is known, so that everything counts as changed.
    above: Option<Vec<usize>>,
}

impl Changed {
    pub fn everywhere() -> Changed {
        Changed { above: None }
    }

    /// What is at most `reach` levels above the classes that the analysis was told of; `egraph` must be rebuilt.
    pub fn since(egraph: &Egraph, reach: usize) -> Changed {
        let count = egraph.classes().map(|c| usize::from(c.id) + 1).max().unwrap_or(0);
        let mut above = vec![usize::MAX; count];
        let mut level: Vec<Id> = egraph.analysis.touched.clone();
        for distance in 0..=reach {
            let mut next = Vec::new();
            for id in level {
                let id = egraph.find(id);
                if above[usize::from(id)] == usize::MAX {
                    above[usize::from(id)] = distance;
                    next.extend(egraph[id].parents());
                }
            }
            level = next;
        }
        Changed { above: Some(above) }
    }

    /// Whether something changed at most `reach` levels below a class.
    pub fn within(&self, class: Id, reach: usize) -> bool {
        self.above.as_ref().is_none_or(|above| above.get(usize::from(class)).is_some_and(|&d| d <= reach))
    }
}
