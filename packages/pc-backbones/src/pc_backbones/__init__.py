"""3D point-cloud backbones behind one contract; loads published weights."""

from pc_backbones.contract import Backbone as Backbone
from pc_backbones.heads import linear_probe_head as linear_probe_head
from pc_backbones.heads import mlp_head as mlp_head
from pc_backbones.neighbors import batch_neighbors as batch_neighbors
from pc_backbones.published import Published as Published
from pc_backbones.published import load_published as load_published
from pc_backbones.waffleiron import WaffleIron as WaffleIron
from pc_backbones.weights import load_backbone as load_backbone
from pc_backbones.weights import read_card as read_card
from pc_backbones.weights import save_backbone as save_backbone
from pc_backbones.zoo import create_backbone as create_backbone
from pc_backbones.zoo import list_backbones as list_backbones
