"""Builds images from recipes; called by `appliancectl image build`, never by the agent.

archive   which Debian packages a recipe means, fetched and verified
package   what is in a .deb
elf       which libraries a program needs
select    which files of the packages become the image
tree      the image's root directory, in memory
pack      the tree as a squashfs file
build     the steps in order
"""
