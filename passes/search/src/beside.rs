//! Outputs beside the one that is judged: what is promised holds for them too, as a share of their variance between samples,
//! unless a metric was asked for.

use crate::confidence::Level;
use crate::kin::averaged;
use crate::metric::Reference;
use ir::Value;

impl Reference {
    /// For each other part its number, the share of its variance that is lost, and an upper bound of that.
    pub(crate) fn elsewhere(&self, outputs: &[Vec<Value>], level: Level) -> Vec<(usize, f64, f64)> {
        let of = |k: usize| {
            let losses: Vec<f64> = outputs.iter().enumerate().map(|(at, o)| self.lost(k, at, o)).collect();
            let once = averaged(&losses, self.classes_of(|k| &k.copies));
            let mean = once.iter().sum::<f64>() / once.len().max(1) as f64;
            let bound = if once.len() < 2 { mean } else { self.bound(&losses, level).max(mean) };
            (self.others[k].0, mean, bound)
        };
        (0..self.others.len()).map(of).collect()
    }

    /// The share of its variance that the `k`-th of the other parts loses in the `at`-th sample; what cannot be compared
    /// loses all.
    fn lost(&self, k: usize, at: usize, outputs: &[Value]) -> f64 {
        let (part, variance) = self.others[k];
        let a = self.all.get(at).and_then(|o| o.get(part)?.as_deref());
        let b = self.parts.get(part).and_then(|p| p.of(outputs));
        let (Some(a), Some(b)) = (a, b) else { return 1.0 };
        let e: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        if a.len() == b.len() && e.is_finite() { e / (variance * a.len().max(1) as f64) } else { 1.0 }
    }

    /// Which outputs count beside the judged one, and the share of its variance that each loses in the `at`-th sample.
    pub fn beside(&self, at: usize, outputs: &[Value]) -> Vec<(usize, f64)> {
        let one = |k: usize| Some((self.parts.get(self.others[k].0)?.output(), self.lost(k, at, outputs)));
        (0..self.others.len()).filter_map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confidence::WHOLE;
    use crate::metric::Metric;
    use ir::Tensor;

    /// A classifier that gives a box as well: its classes stay, its box does not.
    #[test]
    fn what_is_promised_holds_for_every_output() {
        let sample = |i: usize, off: f32| -> Vec<Value> {
            let class = if i.is_multiple_of(2) { [0.9, 0.1] } else { [0.2, 0.8] };
            let corner = (i * 7 % 5) as f32;
            let tensor = |x: Vec<f32>| Value::Tensor(Tensor::new(&[1, x.len()], x).unwrap());
            vec![tensor(vec![corner + off, corner * 2.0 - off]), tensor(class.to_vec())]
        };
        let all =
            |off: f32| (0..10).map(|i| sample(i, if i % 3 == 0 { off } else { -off })).collect::<Vec<_>>();
        let names = ["box".to_string(), "scores".to_string()];
        let r = Reference::new(all(0.0), &names, vec![None; 10], None);
        assert_eq!((r.metric, r.judged), (Metric::Agreement, 1));
        let m = r.measure(&all(0.3), None, WHOLE);
        assert!(m.value == 1.0 && m.drop > 0.01 && m.bound >= m.drop && m.decided_by == Some(0), "{m:?}");
        assert!(r.measure(&all(0.0), None, WHOLE).decided_by.is_none());
        // Whoever asks for a metric has it.
        let asked = Reference::new(all(0.0), &names, vec![None; 10], Some(Metric::Agreement));
        assert_eq!(asked.measure(&all(0.3), None, WHOLE).drop, 0.0);
    }
}
