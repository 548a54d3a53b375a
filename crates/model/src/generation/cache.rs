//! Keys and values of the tokens that were already read, so that each new token costs one column.

use burn::tensor::{Device, Tensor, TensorData, s};
use temper_tensor::is_host;

use crate::config::ModelConfig;
use crate::layers::attention::{Projected, attention};

/// The cache of every layer for one batch of left-padded rows.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
}

impl KvCache {
    /// Room for `capacity` columns in each row. The first `pads[row]` of them are never looked at.
    pub fn new(config: &ModelConfig, pads: &[usize], capacity: usize, device: &Device) -> Self {
        let layer = || LayerCache::new(config, pads, capacity, device);
        Self { layers: (0..config.n_layers).map(|_| layer()).collect() }
    }

    /// Keeps these rows, in this order, and forgets the others: rows that have ended cost nothing more.
    pub fn keep_rows(&mut self, rows: &[usize]) {
        self.layers.iter_mut().for_each(|layer| layer.keep_rows(rows));
    }
}

/// Keys and values of one layer.
///
/// On a CPU the new column is attended in one pass over host memory: tensor operations would copy the whole
/// cache at each step (a narrowed view is made contiguous first). On a GPU everything stays on the device.
#[derive(Debug)]
pub(crate) enum LayerCache {
    Host(HostCache),
    Device(Box<DeviceCache>),
}

impl LayerCache {
    fn new(config: &ModelConfig, pads: &[usize], capacity: usize, device: &Device) -> Self {
        let (n_kv_heads, d_head) = (config.n_kv_heads(), config.d_head());
        if is_host(device) {
            Self::Host(HostCache::new(n_kv_heads * d_head, pads, capacity))
        } else {
            Self::Device(Box::new(DeviceCache::new(n_kv_heads, d_head, pads, capacity, device)))
        }
    }

    /// Keeps the keys and values of some new columns, and mixes the values that their queries attend to.
    ///
    /// # Shapes
    /// - `projected`: `[batch, seq, …]`
    /// - `bias`: of the columns of the prompts, which come first, `[batch, 1, seq, seq]`; `None` for one column after
    ///   them, which sees all columns of its row but the pads
    /// - output: `[batch, seq, n_heads · d_head]`
    pub(crate) fn attend(&mut self, projected: Projected, bias: Option<&Tensor<4>>) -> Tensor<3> {
        let Some(bias) = bias else {
            return match self {
                Self::Host(cache) => cache.attend_column(projected),
                Self::Device(cache) => cache.attend_column(projected),
            };
        };
        let [q, k, v] = projected.split();
        match self {
            Self::Host(cache) => cache.fill(k.clone(), v.clone()),
            Self::Device(cache) => cache.push(k.clone(), v.clone()),
        }
        attention(q, k, v, bias.clone(), |probs| probs)
    }

    fn keep_rows(&mut self, rows: &[usize]) {
        match self {
            Self::Host(cache) => cache.keep_rows(rows),
            Self::Device(cache) => cache.keep_rows(rows),
        }
    }
}

/// `[row, column, n_kv_heads · d_head]` in host memory.
#[derive(Debug)]
pub(crate) struct HostCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    pads: Vec<usize>,
    capacity: usize,
    /// Numbers of one column.
    width: usize,
    len: usize,
}

impl HostCache {
    fn new(width: usize, pads: &[usize], capacity: usize) -> Self {
        let zeros = || vec![0.0; pads.len() * capacity * width];
        Self { keys: zeros(), values: zeros(), pads: pads.to_vec(), capacity, width, len: 0 }
    }

    /// Takes the keys and values of the prompts: `[batch, n_kv_heads, seq, d_head]` each.
    fn fill(&mut self, keys: Tensor<4>, values: Tensor<4>) {
        let [batch, _, seq, _] = keys.dims();
        let flat = |t: Tensor<4>| t.swap_dims(1, 2).reshape([batch, seq * self.width]).into_data();
        let (keys, values) = (flat(keys), flat(values));
        for (cache, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            let new = new.as_slice::<f32>().expect("the cache holds f32");
            let row_len = seq * self.width;
            for row in 0..batch {
                let start = row * self.capacity * self.width;
                cache[start..start + row_len].copy_from_slice(&new[row * row_len..(row + 1) * row_len]);
            }
        }
        self.len = seq;
    }

    fn attend_column(&mut self, projected: Projected) -> Tensor<3> {
        let (device, d_head, width) = (projected.fused.device(), projected.d_head(), self.width);
        let (n_heads, group) = (projected.n_heads, projected.n_heads / projected.n_kv_heads);
        let column = projected.read();
        let scale = 1.0 / (d_head as f32).sqrt();
        let mut mixed = vec![0.0; column.batch * column.q_width];
        let mut probs = vec![0.0; self.len + 1];
        for row in 0..column.batch {
            let [q, k, v] = column.row(row);
            let start = row * self.capacity * width;
            let new = start + self.len * width;
            self.keys[new..new + width].copy_from_slice(k);
            self.values[new..new + width].copy_from_slice(v);
            let columns = start + self.pads[row] * width..new + width;
            let (keys, values) = (&self.keys[columns.clone()], &self.values[columns]);
            for head in 0..n_heads {
                let of_head = head * d_head..(head + 1) * d_head;
                let out = &mut mixed[row * column.q_width..][of_head.clone()];
                attend_head(&q[of_head], keys, values, head / group * d_head, width, scale, &mut probs, out);
            }
        }
        self.len += 1;
        let dims = [column.batch, 1, column.q_width];
        Tensor::from_data(TensorData::new(mixed, dims), &device)
    }

    fn keep_rows(&mut self, rows: &[usize]) {
        let row_len = self.capacity * self.width;
        let used = self.len * self.width;
        for cache in [&mut self.keys, &mut self.values] {
            let mut kept = vec![0.0; rows.len() * row_len];
            for (new, &old) in rows.iter().enumerate() {
                kept[new * row_len..][..used].copy_from_slice(&cache[old * row_len..][..used]);
            }
            *cache = kept;
        }
        self.pads = rows.iter().map(|&row| self.pads[row]).collect();
    }
}

/// One head of one row: softmax(q · kᵢ · scale) over the columns, then the mix of their values.
#[allow(clippy::too_many_arguments)] // The innermost kernel: a struct around these would only rename them.
fn attend_head(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    offset: usize,
    stride: usize,
    scale: f32,
    probs: &mut [f32],
    out: &mut [f32],
) {
    let n = keys.len() / stride;
    let mut max = f32::NEG_INFINITY;
    for (prob, key) in probs.iter_mut().zip(keys.chunks_exact(stride)) {
        let key = &key[offset..offset + q.len()];
        let mut lanes = [0.0f32; 8]; // Independent sums, so that the compiler may use vector registers.
        for (a, b) in q.chunks_exact(8).zip(key.chunks_exact(8)) {
            for lane in 0..8 {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        let tail = q.len() / 8 * 8;
        let rest: f32 = q[tail..].iter().zip(&key[tail..]).map(|(a, b)| a * b).sum();
        *prob = (lanes.iter().sum::<f32>() + rest) * scale;
        max = max.max(*prob);
    }
    let mut sum = 0.0;
    for prob in &mut probs[..n] {
        *prob = (*prob - max).exp();
        sum += *prob;
    }
    for (prob, value) in probs.iter().zip(values.chunks_exact(stride)) {
        let weight = prob / sum;
        for (o, v) in out.iter_mut().zip(&value[offset..]) {
            *o += weight * v;
        }
    }
}

/// `[row, n_kv_heads, column, d_head]` on a GPU.
#[derive(Debug)]
pub(crate) struct DeviceCache {
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
    pad_bias: Tensor<4>, // [row, 1, 1, column]
    len: usize,
}

impl DeviceCache {
    fn new(n_kv_heads: usize, d_head: usize, pads: &[usize], capacity: usize, device: &Device) -> Self {
        let dims = [pads.len(), n_kv_heads, capacity, d_head];
        Self {
            keys: Some(Tensor::zeros(dims, device)),
            values: Some(Tensor::zeros(dims, device)),
            pad_bias: Self::pad_bias(pads, capacity, device),
            len: 0,
        }
    }

    fn pad_bias(pads: &[usize], capacity: usize, device: &Device) -> Tensor<4> {
        let hidden = |&pad: &usize| {
            (0..capacity).map(move |column| if column < pad { f32::NEG_INFINITY } else { 0.0 })
        };
        let bias: Vec<f32> = pads.iter().flat_map(hidden).collect();
        Tensor::from_data(TensorData::new(bias, [pads.len(), 1, 1, capacity]), device)
    }

    /// Writes the new columns in place: nothing else may hold the tensors, hence the `Option`s.
    fn push(&mut self, keys: Tensor<4>, values: Tensor<4>) {
        let end = self.len + keys.dims()[2];
        let write = |cache: &mut Option<Tensor<4>>, new| {
            let old = cache.take().expect("put back after every write");
            *cache = Some(old.slice_assign(s![.., .., self.len..end, ..], new));
        };
        write(&mut self.keys, keys);
        write(&mut self.values, values);
        self.len = end;
    }

    fn attend_column(&mut self, projected: Projected) -> Tensor<3> {
        let [q, k, v] = projected.split();
        self.push(k, v);
        let used = |cache: &Option<Tensor<4>>| {
            cache.clone().expect("put back after every write").narrow(2, 0, self.len)
        };
        let bias = self.pad_bias.clone().narrow(3, 0, self.len);
        attention(q, used(&self.keys), used(&self.values), bias, |probs| probs)
    }

    fn keep_rows(&mut self, rows: &[usize]) {
        let device = self.pad_bias.device();
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let rows = Tensor::from_data(TensorData::new(rows.clone(), [rows.len()]), &device);
        let select = |cache: &mut Option<Tensor<4>>| {
            *cache = cache.take().map(|cache| cache.select(0, rows.clone()));
        };
        select(&mut self.keys);
        select(&mut self.values);
        self.pad_bias = self.pad_bias.clone().select(0, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
    }

    /// Both caches see the same columns; the device one is made of tensor operations only. With as many heads of keys
    /// and values as of queries, and with half as many.
    #[test]
    fn the_host_cache_equals_the_device_cache() {
        let device = Device::flex();
        let (pads, d_head, n_heads) = ([2, 0, 1], 12, 4);
        for n_kv_heads in [4, 2] {
            let mut host = LayerCache::Host(HostCache::new(n_kv_heads * d_head, &pads, 8));
            let on_device = DeviceCache::new(n_kv_heads, d_head, &pads, 8, &device);
            let mut on_device = LayerCache::Device(Box::new(on_device));
            let projected = |rows: usize, seq: usize, phase: f32| {
                let dims = [rows, seq, (n_heads + 2 * n_kv_heads) * d_head];
                let values = TensorData::new(wave(dims.iter().product(), phase), dims);
                Projected { fused: Tensor::from_data(values, &device), n_heads, n_kv_heads }
            };
            let mut compare =
                |projected: &dyn Fn() -> Projected, bias: Option<&Tensor<4>>, keep: &[usize]| {
                    let (a, b) = (host.attend(projected(), bias), on_device.attend(projected(), bias));
                    let difference: f32 = (a - b).abs().max().into_scalar();
                    assert!(difference < 1e-5, "{n_kv_heads} heads: {difference}");
                    if !keep.is_empty() {
                        host.keep_rows(keep);
                        on_device.keep_rows(keep);
                    }
                };
            let bias = Tensor::zeros([3, 1, 4, 4], &device);
            compare(&|| projected(3, 4, 0.5), Some(&bias), &[]);
            compare(&|| projected(3, 1, 1.0), None, &[]);
            compare(&|| projected(3, 1, 2.0), None, &[2, 0]);
            compare(&|| projected(2, 1, 3.0), None, &[]);
            compare(&|| projected(2, 1, 4.0), None, &[]);
        }
    }
}
