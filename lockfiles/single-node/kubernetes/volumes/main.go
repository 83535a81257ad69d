// A provisioner of volumes: each claim becomes a folder of the node below -root, and goes with the claim.
// The controller is that of sig-storage-lib-external-provisioner.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

type folders struct{ root string }

func (f folders) path(volume string) string { return filepath.Join(f.root, volume) }

// Provision makes the folder of a claim.
func (f folders) Provision(
	_ context.Context, options controller.ProvisionOptions,
) (*core.PersistentVolume, controller.ProvisioningState, error) {
	volume, err := f.make(options)
	return volume, controller.ProvisioningFinished, err
}

func (f folders) make(options controller.ProvisionOptions) (*core.PersistentVolume, error) {
	if options.PVC.Spec.Selector != nil || options.SelectedNodeName == "" {
		return nil, fmt.Errorf("not supported: a claim with a selector, or one that is bound before a pod uses it")
	}
	path := f.path(options.PVName)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	// Sticky and open to all, as /tmp: whoever runs in the pod may write.
	if err := os.Chmod(path, 0o777|os.ModeSticky); err != nil {
		return nil, err
	}
	size := options.PVC.Spec.Resources.Requests[core.ResourceStorage]
	node := core.NodeSelectorRequirement{
		Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{options.SelectedNodeName},
	}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   options.PVC.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: size},
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: path}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{
				NodeSelectorTerms: []core.NodeSelectorTerm{{MatchExpressions: []core.NodeSelectorRequirement{node}}},
			}},
		},
	}, nil
}

// Delete removes the folder of a claim that is gone.
func (f folders) Delete(_ context.Context, volume *core.PersistentVolume) error {
	return os.RemoveAll(f.path(volume.Name))
}

func main() {
	root := flag.String("root", "/volumes", "where the folders of the claims are made; the same path here and on the node")
	name := flag.String("name", "pinwheel.io/folder", "the provisioner that a StorageClass names")
	klog.InitFlags(nil)
	flag.Parse()
	ctx := context.Background()
	config, err := rest.InClusterConfig()
	if err != nil {
		klog.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	controller.NewProvisionController(ctx, client, *name, folders{*root}, controller.LeaderElection(false)).Run(ctx)
}
