# Eight H100 of an HGX board in a virtual machine. Facts of a recorded machine (nvidia-smi -q -x) but for the NVLinks, which
# are derived; its serial numbers and UUIDs were replaced before it was published.
library 580.105.08
module 580.105.08
cuda 13000
name NVIDIA H100 80GB HBM3
architecture 9
capability_major 9
capability_minor 0
memory 85520809984
memory_reserved 503316480
memory_used 0
vbios_version 96.00.99.00.01
ecc 1
mig 0
nvlinks 18 6 2 fffffff:ffff:ff.f
utilization 0
ecc_corrected 0
ecc_uncorrected 0
row_remap_pending 0
row_remap_failed 0
recovery 0
clocks_event_reasons 1
fabric_state 3
fabric_cluster 0
fabric_clique 0

gpu 0000:53:00.0
uuid GPU-00000000-0000-0000-0000-000000000000
serial 1650000000001
board_part_number 692-2G520-0200-000
module_id 7
minor 0
celsius 29
milliwatts 68920
pcie_replays 150

gpu 0000:64:00.0
uuid GPU-00000001-0000-0000-0000-000000000001
serial 1650000000002
board_part_number 692-2G520-0200-000
module_id 5
minor 1
celsius 30
milliwatts 67160
pcie_replays 144

gpu 0000:75:00.0
uuid GPU-00000002-0000-0000-0000-000000000002
serial 1650000000003
board_part_number 692-2G520-0200-000
module_id 6
minor 2
celsius 29
milliwatts 67740
pcie_replays 174

gpu 0000:86:00.0
uuid GPU-00000003-0000-0000-0000-000000000003
serial 1650000000004
board_part_number 965-2G520-A800-000
module_id 8
minor 3
celsius 32
milliwatts 71770
pcie_replays 158

gpu 0000:97:00.0
uuid GPU-00000004-0000-0000-0000-000000000004
serial 1650000000005
board_part_number 692-2G520-0200-000
module_id 1
minor 4
celsius 32
milliwatts 66340
pcie_replays 145

gpu 0000:a8:00.0
uuid GPU-00000005-0000-0000-0000-000000000005
serial 1650000000006
board_part_number 692-2G520-0200-000
module_id 3
minor 5
celsius 29
milliwatts 68250
pcie_replays 172

gpu 0000:b9:00.0
uuid GPU-00000006-0000-0000-0000-000000000006
serial 1650000000007
board_part_number 692-2G520-0200-000
module_id 4
minor 6
celsius 31
milliwatts 70010
pcie_replays 162

gpu 0000:ca:00.0
uuid GPU-00000007-0000-0000-0000-000000000007
serial 1650000000008
board_part_number 692-2G520-0200-000
module_id 2
minor 7
celsius 29
milliwatts 68180
pcie_replays 106
