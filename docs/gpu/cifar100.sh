#!/bin/sh
# The comparison of multi-teacher systems on CIFAR-100, on one GPU. Not measured yet.
#
# Usage: sh docs/gpu/cifar100.sh FOLDER_OF_CIFAR OUT
# FOLDER_OF_CIFAR holds cifar-100-python as published. The same command continues after a stop.
# Four stored views of each image take 2.3 GB of memory, and their bank with feature maps 18 GB of disk.
set -eu
data=$1 out=$2 task='cifar100(views=4)'
mkdir -p "$out/teachers"

# Three teachers of one architecture that differ in their seeds; 60 epochs of the views are 240 of the images.
for seed in 0 1 2; do
  kd-env teach --task "$task" --data-dir "$data" --model resnet32x4 --epochs 60 --batch-size 64 --seed "$seed" \
    --out "$out/teachers/resnet32x4-$seed"
done
kd-env bank --task "$task" --data-dir "$data" --teachers "$out/teachers" --maps --half --out "$out/bank"

# SGD in batches of 64, 240 epochs, as published. L = (1 - WEIGHT) CE + WEIGHT KL: weight .5 and temperature 4 of most papers; AMTML's are .7 and 5.
distil() { # STUDENT RATE WEIGHT TEMPERATURE KNOWLEDGE POLICIES...
  student=$1 rate=$2 weight=$3 temperature=$4 knowledge=$5
  shift 5
  for policy; do
    kd-env run --task "$task" --data-dir "$data" --teachers "$out/teachers" --bank "$out/bank" --student "$student" --policy "$policy" \
      --seeds 0-4 --updates 172500 --set batch_size=64 --set "kd_weight=$weight" --set "temperature=$temperature" --set "knowledge=$knowledge" \
      --set "optimizer=sgd(lr=$rate,weight_decay=0.0005,decay=steps,nesterov=true)" --set validation_every=7180 --out "$out/$student"
  done
  kd-env report "$out/$student"
}
for pair in resnet8x4:0.05 vgg8:0.05 mobilenetv2:0.01 shufflenetv2:0.01; do
  student=${pair%:*} rate=${pair#*:}
  distil "$student" "$rate" 0.5 4 response no_teacher uniform ebkd aekd camkd_logits best_single
  distil "$student" "$rate" 0.5 4 'response,map_hint(strength=50,skip_epochs=1)' uniform camkd 'camkd(scale=released)'
  distil "$student" "$rate" 0.5 4 'response,map_hint(strength=100)' fitnet_mkd 'fitnet_mkd(scale=released)'
  distil "$student" "$rate" 0.5 4 'response,map_hint(strength=100,convolutions=3)' 'mmkd(scale=released)'
  distil "$student" "$rate" 0.5 4 'response,map_hint(strength=5)' mtkd_rl 'mtkd_rl_released(scale=released,every=1000,learned_shares=true)'
  distil "$student" "$rate" 0.5 4 'tckd,nckd(strength=8)' uniform # DKD
  distil "$student" "$rate" 0.7 5 response uniform amtml 'amtml(scale=released)'
done
