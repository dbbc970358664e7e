"""What would make sense in another project: no word of disks or virtual machines in this house."""
